"""Normalised lines and documents against plain per-character references."""

from __future__ import annotations

import re
import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st

from criadero.corpus.text_normal import PUNCTUATION, comparable_lines, scorable
from linear_time import is_linear

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def naive_line(line: str) -> str:
    line = re.sub(r"\d", "0", line.lower())
    return CONTROL.sub("", "".join(c for c in line if c not in PUNCTUATION))


def naive_scorable(text: str) -> str:
    decomposed = unicodedata.normalize("NFD", text.strip().lower())
    plain = "".join(c for c in decomposed if unicodedata.category(c) != "Mn")
    plain = re.sub(r"\d", "0", plain)
    return CONTROL.sub("", "".join(PUNCTUATION.get(c, c) for c in plain))


@given(ANY_TEXT)
@example("ΑΣ\nΑΣΑ İstanbul ǅ")
@example("x\x85y z")
def test_lines_equal_the_reference(text):
    assert [b.decode() for b in comparable_lines(text)] == [naive_line(x) for x in text.split("\n")]


@given(ANY_TEXT)
@example("café … 「１２」 ΑΣ 한국어")
def test_documents_equal_the_reference(text):
    assert scorable(text) == naive_scorable(text)


@given(ANY_TEXT)
def test_normalising_a_second_time_changes_nothing(text):
    # Deleting an outer control character can lay blanks bare, which a second pass strips.
    once = scorable(text).strip()
    assert scorable(once) == once
    lines = "\n".join(b.decode() for b in comparable_lines(text))
    assert "\n".join(b.decode() for b in comparable_lines(lines)) == lines


def test_what_ccnet_changes_and_what_it_leaves():
    assert comparable_lines("Chapter 12: the “End”…") == [b"chapter 00: the end"]
    assert comparable_lines("a.b, c! (٣)") == [b"a.b, c! (0)"]
    assert scorable("Ünïted — “Stätes”\n№ 42…") == 'united - "states"№ 00...'


def test_the_document_becomes_one_line_as_in_ccnet():
    assert scorable("one\ntwo") == "onetwo"


def test_half_a_surrogate_pair_is_no_crash():
    assert comparable_lines("a\ud800") == [b"a?"]


def test_time_grows_with_size_only():
    def both(text: str) -> None:
        scorable(text)
        comparable_lines(text)

    assert is_linear(both, lambda count: "“Größe” 12\n" * count, 40_000)
