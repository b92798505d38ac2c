"""What the page makes of Markdown: the same tree whole or character by character, in linear time."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

pytestmark = pytest.mark.xdist_group("page")

TREE = """async ([text, step]) => {
    const { MarkdownView } = await import(new URL("page/markdown.js", location.href));
    const root = document.createElement("div");
    const view = new MarkdownView(root);
    for (let at = 0; at < text.length; at += step) view.feed(text.slice(at, at + step));
    view.finish();
    return root.innerHTML;
}"""
SECONDS = """async (text) => {
    const { MarkdownView } = await import(new URL("page/markdown.js", location.href));
    const view = new MarkdownView(document.createElement("div"));
    const start = performance.now();
    for (let at = 0; at < text.length; at += 2000) view.feed(text.slice(at, at + 2000));
    view.finish();
    return (performance.now() - start) / 1000;
}"""
LINK = 'rel="noopener noreferrer" target="_blank"'

CASES = {
    "one\ntwo\n\nthree": "<p>one\ntwo</p><p>three</p>",
    "## Title ##\ntext": "<h4>Title</h4><p>text</p>",
    "a **b *c* d** `e*f*`": "<p>a <strong>b <em>c</em> d</strong> <code>e*f*</code></p>",
    "***both*** and snake_case_name, 2 * 3 * 4": (
        "<p><strong><em>both</em></strong> and snake_case_name, 2 * 3 * 4</p>"
    ),
    "**open *and `never": "<p>**open *and `never</p>",
    r"\*no\* ``a ` b``": "<p>*no* <code>a ` b</code></p>",
    "- a\n- b\n  - c\n- d": "<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul>",
    "3. a\n\n4. b\n\nafter": '<ol start="3"><li>a</li><li>b</li></ol><p>after</p>',
    "> q\n> r\n\nafter": "<blockquote><p>q\nr</p></blockquote><p>after</p>",
    "a\n\n---\nb": "<p>a</p><hr><p>b</p>",
    "[a](https://e.org/x) https://e.org/y.": (
        f'<p><a href="https://e.org/x" {LINK}>a</a> <a href="https://e.org/y" {LINK}>https://e.org/y</a>.</p>'
    ),
    "[a](javascript:alert(1)) [b](data:text/html,x)": "<p>[a](javascript:alert(1)) [b](data:text/html,x)</p>",
    "<b>bold</b> &amp; <script>x</script>": (
        "<p>&lt;b&gt;bold&lt;/b&gt; &amp;amp; &lt;script&gt;x&lt;/script&gt;</p>"
    ),
}


@pytest.mark.parametrize(("text", "tree"), CASES.items())
def test_markdown_becomes_this_tree_in_pieces_of_any_size(page: Page, text: str, tree: str):
    for step in (len(text), 3, 1):
        assert page.evaluate(TREE, [text, step]) == tree


@pytest.mark.parametrize("step", [1, 5, 1000])
def test_code_keeps_every_character_until_its_fence(page: Page, step: int):
    text = "see\n```py\na = '<b>'\n\n    `b`  \n# **no**\n```\nafter"
    tree = page.evaluate(TREE, [text, step])
    assert "<code>a = '&lt;b&gt;'\n\n    `b`  \n# **no**\n</code>" in tree
    assert tree.startswith("<p>see</p>")
    assert tree.endswith("<p>after</p>")


@pytest.mark.parametrize("step", [1, 1000])
def test_a_table_has_its_head_and_rows(page: Page, step: int):
    tree = page.evaluate(TREE, ["| a | b |\n|---|:-:|\n| 1 | **2** |\n", step])
    head, body = "<tr><th>a</th><th>b</th></tr>", "<tr><td>1</td><td><strong>2</strong></td></tr>"
    assert f"<table><thead>{head}</thead><tbody>{body}</tbody></table>" in tree


@pytest.mark.parametrize(
    "unit",
    ["*", "_a", "**a ", "[", "[a](", "`", "`a``b", "> ",
     "- a\n", "  - a\n", "|", "|-\n",
     "~", "a", "\n", " ", "h", "http://", "# # ", "\\", "(", "- "],
)  # fmt: skip
def test_no_text_takes_more_than_linear_time(page: Page, unit: str):
    text = unit * (400_000 // len(unit))
    assert page.evaluate(SECONDS, text) < 8  # quadratic work on so much is minutes
