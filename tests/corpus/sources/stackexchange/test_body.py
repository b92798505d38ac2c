"""HTML of posts as text: what is kept, what is dropped, and that nothing makes it slow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criadero.corpus.sources.stackexchange.body import html_to_text
from linear_time import is_linear


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("<p>One\n  two</p>\n\n<p>three</p>", "One two\n\nthree"),
        ("<p>a <strong>b</strong><em>c</em>, d</p>", "a bc, d"),
        ('<p>See <a href="https://example.org" rel="nofollow">the manual</a>.</p>', "See the manual."),
        ('<p>Look: <img src="x.png" alt="a cat"> nice</p>', "Look: nice"),
        ("<h2>Title</h2><p>text<br>next<br />last</p><hr>end", "Title\n\ntext\nnext\nlast\n\nend"),
        ("<blockquote>\n  <p>said</p>\n</blockquote>\n<p>so</p>", "said\n\nso"),
        ("x &lt; y &amp;&amp; z &amp;amp; &#39;q&#39; &nbsp; &eacute;", "x < y && z &amp; 'q' é"),
        ("a <!-- language: lang-py --> b", "a b"),
        ("a <!-- never closed b", "a never closed b"),
        ("1 < 2 and <3 or a<b", "1 < 2 and <3 or a<b"),
        ("<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>", "a b\n1 2"),
        ("H<sub>2</sub>O", "H2O"),
        ("", ""),
        ("<p></p>", ""),
    ],
)
def test_prose(markup: str, text: str) -> None:
    assert html_to_text(markup) == text


def test_code_blocks_keep_line_ends_indentation_and_blank_lines() -> None:
    code = "def f(x):\n    if x &lt; 2:\n\treturn  x\n\n    return f(x - 1)  # &amp;lt; \n"
    markup = f'<p>Try:</p>\n\n<pre class="lang-py s-code-block"><code>{code}</code></pre>\n\n<p>ok</p>'
    expected = "Try:\n\ndef f(x):\n    if x < 2:\n\treturn  x\n\n    return f(x - 1)  # &lt; \n\nok"
    assert html_to_text(markup) == expected


def test_code_at_the_start_keeps_the_indentation_of_its_first_line() -> None:
    assert html_to_text("<pre><code>    four\n  two\n\n\n</code></pre><p>x</p>") == "    four\n  two\n\nx"


def test_spans_inside_code_do_not_change_it() -> None:
    markup = "<pre><code><span>for</span> i in x:\n    <span>print</span>(i)\n</code></pre>"
    assert html_to_text(markup) == "for i in x:\n    print(i)"


def test_nested_and_ordered_lists_are_bullets_with_indents() -> None:
    markup = """<p>Steps:</p>
<ol>
<li><p>Boil water.</p></li>
<li>Add salt:
  <ul>
    <li>coarse</li>
    <li>fine <ol><li>very <b>fine</b></li></ol></li>
  </ul>
  then wait.</li>
<li><p>One</p><p>two</p><pre><code>x = 1
  y
</code></pre></li>
</ol>
<p>Done.</p>"""
    assert html_to_text(markup) == (
        "Steps:\n\n- Boil water.\n- Add salt:\n  - coarse\n  - fine\n    - very fine\n  then wait.\n"
        "- One\n  two\nx = 1\n  y\n\nDone."
    )


def test_no_numeric_reference_is_too_long_to_read() -> None:
    assert html_to_text(f"a &#{'9' * 10_000}; &#x{'f' * 10_000}; &#x41; &#0; &#xD800; b") == "a � � A � � b"


_REFERENCES = st.lists(st.sampled_from(["&#xD800;", "&#56320", "&#xDFFF;", "&#", "xD83D;", "<p>", "a", ";"]))


@given(st.text() | st.text(alphabet="<>/!-&;#xp reuliolcode\n\"'") | _REFERENCES.map("".join))
def test_no_text_is_a_fault_and_none_has_surrogates(markup: str) -> None:
    text = html_to_text(markup)
    assert text.encode().decode() == text


@given(st.lists(st.sampled_from(["word", "a b", "é", "- item", "42"])))
def test_text_without_markup_is_left_as_it_is(words: list[str]) -> None:
    text = " ".join(words)
    assert html_to_text(text) == text == html_to_text(html_to_text(text))


@pytest.mark.parametrize(
    "unit", ["<", "<!--", "<a ", "<p", "<ul><li>a", "<pre>\n", "<b><p id=1>", "&", "&#1", "<a href='", "-->"]
)
def test_twice_the_length_takes_less_than_three_times_as_long(unit: str) -> None:
    assert is_linear(html_to_text, lambda count: unit * count, 400_000 // len(unit))
