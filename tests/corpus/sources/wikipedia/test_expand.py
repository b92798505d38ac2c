"""Templates found and replaced: the same ones mwparserfromhell finds, in time that grows with the text."""

from __future__ import annotations

import mwparserfromhell
import pytest
from hypothesis import given
from hypothesis import strategies as st

from criadero.corpus.sources.wikipedia.expand import MAX_DEPTH, Arguments, expand
from criadero.corpus.sources.wikipedia.templates import render_for
from linear_time import is_linear


def _shown(name: str, arguments: Arguments) -> str:
    named = [f"{key}={value}" for key, value in arguments.names.items()]
    return f"<{name}:{','.join([*arguments.places, *named])}>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a {{b}} c", "a <b:> c"),
        ("{{ b_c | 1 | x = y }}", "<b c:1,x=y>"),
        ("{{a|{{b|c}}|d}}", "<a:<b:c>,d>"),
        ("{{a|[[b|c]]|d}}", "<a:[[b|c]],d>"),
        ("{{a|2=y|1=x}}", "<a:x,y>"),
        ("{{a|x|http://b?c}}", "<a:x,http://b?c>"),
        ("x {{{1|default}}} {{{2}}} y", "x default  y"),
        ("{{a|{{{1|}}}}}", "<a:>"),
        ("{{{{a}}}}", "<<a:>:>"),
        ("a | b {{c}} | d", "a | b <c:> | d"),
        ("{{unclosed | a", "unclosed \n"),
        ("closed }} b", "closed  b"),
        ("{{Infobox\n| a = 1\n| b = 2\n\nThe text.", "Infobox\n\n\n\nThe text."),
        ("{ single } {|table|}", "{ single } {|table|}"),
    ],
)
def test_templates_are_replaced(text: str, expected: str) -> None:
    assert expand(text, _shown) == expected


_PIECES = st.sampled_from(["{{a|", "{{b}}", "}}", "|", "x=", " ", "word", "[[l|t]]", "\n"])


@given(st.lists(_PIECES, max_size=12).map("".join))
def test_balanced_templates_are_those_of_mwparserfromhell(text: str) -> None:
    if text.count("{{") != text.count("}}") or any(
        text[:n].count("{{") < text[:n].count("}}") for n in range(len(text))
    ):
        return
    seen: list[tuple[str, int]] = []
    expand(text, lambda name, arguments: seen.append((name, len(arguments.names))) or "")
    theirs = [
        (" ".join(str(t.name).split()), sum(p.showkey for p in t.params))
        for t in mwparserfromhell.parse(text).filter_templates()
    ]
    assert len(seen) == len(theirs)


@given(st.text(alphabet="{}[]|=a\n", max_size=60))
def test_any_braces_are_accepted(text: str) -> None:
    found = expand(text, _shown)
    assert isinstance(found, str)


def test_deeper_than_mediawiki_goes_is_left_out() -> None:
    deep = "{{a|" * (MAX_DEPTH + 20) + "core" + "}}" * (MAX_DEPTH + 20)
    assert expand(deep, lambda _, arguments: arguments.get(1)) == ""
    fine = "{{a|" * (MAX_DEPTH - 1) + "core" + "}}" * (MAX_DEPTH - 1)
    assert expand(fine, lambda _, arguments: arguments.get(1)) == "core"


@pytest.mark.parametrize("unit", ["{{", "{{a|", "{{{{[[[[", "{{a|b}}", "}}", "{{a|[[", "|"])
def test_twice_the_text_takes_less_than_three_times_as_long(unit: str) -> None:
    render = render_for("en")
    assert is_linear(lambda text: expand(text, render), lambda length: (unit * length)[:length], 50_000)
