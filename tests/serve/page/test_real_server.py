"""The chat page at the address of the real server, in front of a model."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from criadero.serve.guard import LOOPBACK, Guard
from serve.page.test_chat import bodies, send
from serve.running import running, until

pytestmark = pytest.mark.xdist_group("page")


@pytest.fixture
def served():
    with running(wrap=lambda app: Guard(app, keys=["let me in"], hosts=LOOPBACK)) as server:
        yield server


@pytest.fixture
def page(browser: Browser, served):
    """The page, with the key that it asks for."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.goto(served.url)
    page.fill("#key", "let me in")
    page.keyboard.press("Enter")
    page.locator("#model", has_text="tiny").wait_for()
    yield page
    context.close()


def test_the_page_shows_what_the_model_writes_and_stop_frees_its_place(page, served):
    served.engine.hold()
    send(page, "Tell me all")
    until(lambda: served.worker.open_requests == 1)
    served.engine.allow(30)
    expect(page.locator(".assistant .body")).not_to_be_empty()
    page.keyboard.press("Escape")
    until(lambda: served.worker.open_requests == 0)
    steps = served.engine.steps
    served.engine.go_on()
    until(lambda: not served.engine.has_work)
    assert served.engine.steps <= steps + 2
    assert served.worker.cancelled == 1
    expect(page.locator(".note")).to_have_text("stopped")
    assert bodies(page)[0] == "Tell me all"
