"""How the page looks: narrow screens, light and dark."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page, expect

from serve.page.stub import Stub

pytestmark = pytest.mark.xdist_group("page")

WIDE = "```\n" + "x" * 400 + "\n```\n\n| " + " | ".join("column" * 3 for _ in range(8)) + " |\n|" + "---|" * 8
BACKS = {"light": "rgb(251, 249, 246)", "dark": "rgb(26, 24, 22)"}


def back(page: Page) -> str:
    colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return colour


@pytest.mark.parametrize("text", [WIDE + "\n", "w" * 900, "https://example.org/" + "a" * 500])
def test_nothing_is_wider_than_a_phone(page: Page, server: Stub, text: str):
    page.set_viewport_size({"width": 360, "height": 700})
    server.replies["wide"] = text
    page.fill("#message", "wide")
    page.keyboard.press("Enter")
    expect(page.locator("#use")).to_contain_text("124")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.click("#open-settings")
    box = page.locator("#settings").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360


def test_buttons_of_the_header_are_on_a_phone_too(page: Page):
    page.set_viewport_size({"width": 360, "height": 700})
    for name in ("#new", "#open-settings", "#theme", "#send"):
        expect(page.locator(name)).to_be_in_viewport(ratio=1)


@pytest.mark.parametrize(("scheme", "other"), [("light", "dark"), ("dark", "light")])
def test_the_system_chooses_light_or_dark_until_the_user_does(
    browser: Browser, server: Stub, scheme: str, other: str
):
    page = browser.new_page(color_scheme="dark" if scheme == "dark" else "light")
    page.goto(server.url)
    assert back(page) == BACKS[scheme]
    page.click("#theme")
    assert back(page) == BACKS[other]
    page.reload()
    assert back(page) == BACKS[other]
    page.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    ("front", "behind"),
    [
        ("ink", "back"),
        ("soft", "back"),
        ("soft", "sunk"),
        ("accent", "back"),
        ("alarm", "alarm-back"),
        ("on-accent", "accent"),
    ],
)
def test_text_stands_out_enough_from_what_is_behind_it(page: Page, theme: str, front: str, behind: str):
    page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
    assert contrast(colour(page, front), colour(page, behind)) >= 4.5  # WCAG 2.2, level AA


def colour(page: Page, name: str) -> list[int]:
    script = """(name) => {
        const node = document.createElement("i");
        document.body.append(node);
        node.style.color = `var(--${name})`;
        return getComputedStyle(node).color.match(/\\d+/g).map(Number);
    }"""
    found: list[int] = page.evaluate(script, name)
    return found


def contrast(one: list[int], two: list[int]) -> float:
    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: list[int]) -> float:
    """WCAG's relative luminance of an sRGB colour."""
    parts = [c / 255 for c in colour[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
