"""What a model writes never runs and never makes a request; the page asks nobody but its own server."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

import criadero.serve.page
from criadero.serve.page import PATHS, POLICY, ROUTES
from serve.page.stub import ATTACK, Stub

pytestmark = pytest.mark.xdist_group("page")

FOLDER = Path(criadero.serve.page.__file__).with_suffix("")
WAYS_TO_RUN = (
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser|srcdoc|setHTML"
)


def test_what_a_model_writes_is_text(page: Page, server: Stub):
    dialogs: list[str] = []
    requests: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: requests.append(request.url))
    server.replies["attack"] = ATTACK
    page.fill("#message", "attack")
    page.keyboard.press("Enter")
    expect(page.locator("#use")).to_contain_text("124")
    body = page.locator(".assistant .body")
    assert (
        "<img src=x onerror=alert(1)> <script>alert(2)</script> [a](javascript:alert(3))" in body.inner_text()
    )
    assert body.locator("img, script, svg").count() == 0
    assert dialogs == []
    assert requests == [f"{server.url}v1/chat/completions"]


def test_what_a_user_writes_and_a_server_says_is_text_too(page: Page, server: Stub):
    server.failures = [(400, "<img src=x onerror=alert(5)>")]
    page.fill("#message", "<img src=x onerror=alert(6)>")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("<img src=x onerror=alert(5)>")
    assert page.locator(".user .body").inner_text() == "<img src=x onerror=alert(6)>"
    assert page.locator("main img").count() == 1  # the llama of the welcome


def test_the_policy_stops_what_is_inline_or_from_elsewhere(page: Page):
    script = """async () => {
        const broken = [];
        document.addEventListener("securitypolicyviolation", (e) => broken.push(e.effectiveDirective));
        const inline = document.createElement("script");
        inline.textContent = "window.ran = true";
        const image = document.createElement("img");
        image.src = "http://elsewhere.example/pixel.png";
        document.body.append(inline, image);
        await fetch("http://elsewhere.example/").catch(() => {});
        await new Promise((done) => setTimeout(done, 200));
        return { broken: broken.sort(), ran: window.ran === true };
    }"""
    assert page.evaluate(script) == {"broken": ["connect-src", "img-src", "script-src-elem"], "ran": False}


def test_the_page_says_nothing_on_the_console(page: Page, server: Stub):
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.reload()
    page.fill("#message", "hello")
    page.keyboard.press("Enter")
    expect(page.locator("#use")).to_contain_text("124")
    assert said == []


@pytest.mark.parametrize("path", sorted(PATHS))
def test_each_file_has_the_headers_and_is_sent_once(server: Stub, path: str):
    url = server.url.rstrip("/") + path
    with urllib.request.urlopen(url) as response:
        headers = response.headers
        assert response.read() == (FOLDER / ROUTES[path][0]).read_bytes()
    assert headers["Content-Security-Policy"] == POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    again = urllib.request.Request(url, headers={"If-None-Match": headers["ETag"]})
    with pytest.raises(urllib.error.HTTPError, match="304") as refused:
        urllib.request.urlopen(again)
    refused.value.close()


def test_only_the_files_of_the_page_are_served(server: Stub):
    assert {name for name, _ in ROUTES.values()} == {file.name for file in FOLDER.iterdir()}
    for path in ("/page/", "/page/../page.py", "/page/%2e%2e/page.py", "/page/none.js"):
        with pytest.raises(urllib.error.HTTPError, match="404") as refused:
            urllib.request.urlopen(server.url.rstrip("/") + path)
        refused.value.close()


@pytest.mark.parametrize("file", sorted(FOLDER.iterdir()), ids=lambda file: file.name)
def test_no_file_makes_markup_of_text_or_names_another_host(file: Path):
    text = file.read_text()
    assert not re.search(WAYS_TO_RUN, text)
    hosts = set(re.findall(r"https?://[\w-]+\.[\w./-]+|(?<=[\"'`])//[\w.-]+", text))
    assert hosts <= {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert not re.search(r"\sstyle=|\son\w+=|@import|url\(", text)
    assert len(text.splitlines()) <= 500
