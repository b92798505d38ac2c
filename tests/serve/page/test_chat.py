"""The chat page in a real browser: what a user does, and what goes wrong."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from serve.page.stub import Stub

pytestmark = pytest.mark.xdist_group("page")


def send(page: Page, text: str) -> None:
    page.fill("#message", text)
    page.keyboard.press("Enter")


def ask(page: Page, text: str) -> None:
    """Send a message and wait for the end of the answer."""
    send(page, text)
    finished(page)


def finished(page: Page) -> None:
    expect(page.locator("#send")).to_be_visible()
    expect(page.locator("#status")).to_contain_text("Answer")
    expect(page.locator("#status")).not_to_have_text("Answering.")


def bodies(page: Page) -> list[str]:
    return page.locator("article .body").all_inner_texts()


def test_an_answer_is_shown_while_it_is_written(page: Page):
    send(page, "slow")
    expect(page.locator(".assistant .body")).to_contain_text("word1 ")
    expect(page.locator("#stop")).to_be_visible()
    expect(page.locator(".assistant .body")).to_contain_text("word9 ")
    page.keyboard.press("Escape")


def test_characters_cut_between_packets_come_out_whole(page: Page, server: Stub):
    server.replies["say"] = "Ünïcödé 🦙 and 漢字, twice: 🦙"
    ask(page, "say")
    assert bodies(page) == ["say", "Ünïcödé 🦙 and 漢字, twice: 🦙"]


def test_escape_stops_the_answer_and_the_server_notices(page: Page, server: Stub):
    send(page, "slow")
    expect(page.locator(".assistant .body")).to_contain_text("word3 ")
    page.keyboard.press("Escape")
    assert server.left.wait(5)
    expect(page.locator(".note")).to_have_text("stopped")
    expect(page.locator("#send")).to_be_visible()
    assert "word3" in bodies(page)[1]


def test_a_new_chat_stops_the_answer_too(page: Page, server: Stub):
    send(page, "slow")
    expect(page.locator(".assistant .body")).to_contain_text("word3 ")
    page.click("#new")
    assert server.left.wait(5)
    expect(page.locator("article")).to_have_count(0)
    ask(page, "again")
    assert server.asked[-1]["messages"] == [{"role": "user", "content": "again"}]


def test_regenerate_asks_for_the_same_again(page: Page, server: Stub):
    ask(page, "hello")
    page.get_by_role("button", name="Regenerate").click()
    expect(page.locator(".assistant .body")).to_have_text("Answer 2 to: hello")
    finished(page)
    assert (
        server.asked[1]["messages"] == server.asked[0]["messages"] == [{"role": "user", "content": "hello"}]
    )


def test_an_edited_message_is_sent_again_without_what_followed(page: Page, server: Stub):
    ask(page, "first")
    ask(page, "second")
    page.locator(".user").first.hover()
    page.locator(".user").first.get_by_role("button", name="Edit").click()
    page.get_by_label("Edit message").fill("changed")
    page.get_by_role("button", name="Send again").click()
    expect(page.locator(".assistant .body")).to_have_text("Answer 3 to: changed")
    assert bodies(page)[0] == "changed"
    assert server.asked[-1]["messages"] == [{"role": "user", "content": "changed"}]


def test_an_edited_answer_is_what_the_model_is_told_it_said(page: Page, server: Stub):
    ask(page, "first")
    page.locator(".assistant").get_by_role("button", name="Edit").click()
    page.get_by_label("Edit message").fill("I said this")
    page.get_by_role("button", name="Keep").click()
    ask(page, "second")
    assert [one["content"] for one in server.asked[-1]["messages"]] == ["first", "I said this", "second"]


def test_system_prompt_and_sampling_are_sent_and_kept(page: Page, server: Stub):
    page.click("#open-settings")
    page.get_by_label("System prompt").fill("Answer like a pirate.")
    for name, value in (("Temperature", "0.3"), ("Top p", "0.5"), ("Most tokens", "64"), ("Seed", "7")):
        page.get_by_label(name).fill(value)
    page.get_by_role("button", name="Done").click()
    page.reload()
    ask(page, "hello")
    asked = server.asked[-1]
    assert asked["messages"][0] == {"role": "system", "content": "Answer like a pirate."}
    assert [asked[name] for name in ("temperature", "top_p", "max_tokens", "seed")] == [0.3, 0.5, 64, 7]
    assert asked["stream_options"] == {"include_usage": True}


def test_a_wrong_setting_is_not_sent(page: Page, server: Stub):
    page.click("#open-settings")
    page.get_by_label("Temperature").fill("9")
    page.get_by_role("button", name="Done").click()
    ask(page, "hello")
    assert server.asked[-1]["temperature"] == 0.8
    assert "max_tokens" not in server.asked[-1]
    assert "seed" not in server.asked[-1]


def test_speed_and_context_are_shown(page: Page, server: Stub):
    ask(page, "hello there, how are you today?")
    assert re.fullmatch(r"100 tokens · [\d.]+ tokens/s", page.locator(".note").inner_text())
    assert page.locator("#use").inner_text() == "124 of 2,048 tokens of context"


def test_the_conversation_outlives_a_reload_and_a_new_chat_ends_it(page: Page):
    ask(page, "hello")
    page.reload()
    assert bodies(page) == ["hello", "Answer 1 to: hello"]
    page.click("#new")
    page.reload()
    expect(page.locator(".welcome")).to_be_visible()
    assert bodies(page) == []


def test_copy_gives_the_markdown_and_code_alone(page: Page, server: Stub):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    server.replies["code"] = "Run **this**:\n\n```sh\nls -l\n```\n"
    ask(page, "code")
    page.locator(".assistant .foot").get_by_role("button", name="Copy").click()
    expect(page.locator(".assistant .foot button").first).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == server.replies["code"]
    page.get_by_role("button", name="Copy code").click()
    expect(page.get_by_role("button", name="Copy code")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "ls -l\n"


def test_everything_can_be_done_with_the_keys_alone(page: Page, server: Stub):
    assert page.evaluate("document.activeElement.id") == "message"
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    finished(page)
    assert server.asked[0]["messages"][0]["content"] == "one\ntwo"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Control+A")
    page.keyboard.type("three")
    page.keyboard.press("Enter")
    expect(page.locator(".assistant .body")).to_have_text("Answer 2 to: three")
    assert reached(page) >= {"New chat", "Settings", "Copy", "Edit", "Regenerate"}


def reached(page: Page) -> set[str]:
    """The names of what Tab comes by, from the beginning of the page."""
    page.evaluate("document.activeElement.blur()")
    names = set()
    for _ in range(14):
        page.keyboard.press("Tab")
        names.add(page.evaluate("document.activeElement.textContent.trim()"))
    return names


def test_a_key_is_asked_for_and_kept_for_the_tab_only(page: Page, server: Stub):
    server.key = "sesame"
    page.reload()
    page.get_by_label("API key", exact=True).last.fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key")).to_have_value("")  # asked again
    page.locator("#key").fill("sesame")
    page.keyboard.press("Enter")
    expect(page.locator("#model")).to_have_text("tiny-llama")
    ask(page, "hello")
    assert bodies(page)[1] == "Answer 1 to: hello"
    assert "sesame" not in page.evaluate("JSON.stringify(localStorage)")
    assert "sesame" in page.evaluate("JSON.stringify(sessionStorage)")


@pytest.mark.parametrize(
    ("status", "message"),
    [(429, "Too many requests wait."), (503, "It is draining."), (400, "It is too long.")],
)
def test_a_refusal_is_shown_and_can_be_retried(page: Page, server: Stub, status: int, message: str):
    server.failures = [(status, message)]
    send(page, "hello")
    expect(page.get_by_role("alert")).to_contain_text(message)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".assistant .body")).to_have_text("Answer 2 to: hello")
    expect(page.locator("#problem")).to_be_hidden()
    assert server.asked[0]["messages"] == server.asked[1]["messages"]


def test_a_connection_that_is_lost_keeps_the_text_and_can_be_retried(page: Page, server: Stub):
    send(page, "cut")
    expect(page.get_by_role("alert")).to_contain_text("The connection was lost.")
    assert bodies(page)[1] == "Answer 1 to: cut"
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".assistant .body")).to_have_text("Answer 2 to: cut")


def test_a_server_that_is_away_is_said(page: Page, server: Stub):
    page.route("**/v1/**", lambda route: route.abort())
    send(page, "hello")
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")


def test_a_model_that_loads_is_waited_for(page: Page, server: Stub):
    server.loading = True
    page.reload()
    expect(page.locator("#model")).to_have_text("loading the model …")
    server.loading = False
    expect(page.locator("#model")).to_have_text("tiny-llama")
