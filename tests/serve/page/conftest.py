"""One Chromium for the tests of a file; each test gets its own server and its own profile.

Playwright keeps a loop running in the thread of the tests: it must be closed before those of other files run.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from serve.page.stub import Stub, running

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture
def server() -> Iterator[Stub]:
    with running() as stub:
        yield stub


@pytest.fixture
def page(browser: Browser, server: Stub) -> Iterator[Page]:
    """The chat page, opened and connected."""
    context = browser.new_context(viewport={"width": 1000, "height": 760}, color_scheme="light")
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.goto(server.url)
    page.locator("#model", has_text="tiny-llama").wait_for()
    yield page
    context.close()
