"""Bad words: an entry counts between characters that no word has; held against one expression for all."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criadero.corpus.document import Document, Drop
from criadero.corpus.sources.c4.bad_words import bad_words_filter, make_bad_words, read_list
from criadero.errors import DataError

WORDS = frozenset({"ass", "bad word", "c++", "two girls", "s&m"})


def dropped(text):
    return isinstance(bad_words_filter(WORDS)(Document("p", text, "c4")), Drop)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I asked my friend for assistance polishing my cutlass.", False),
        ("He put it on his ass in preparation.", True),
        ("Ass is one of several species.", True),
        ('One synonym is "ass".', True),
        ("An ass_et is no such word.", False),
        ("A bad word is here.", True),
        ("A bad words list is not.", False),
        ("Written in C++, mostly.", True),
        ("ends with ass", True),
    ],
)
def test_a_word_counts_when_it_stands_alone(text, expected):
    assert dropped(text) == expected


@given(
    st.lists(st.sampled_from(["ass", "As", "s", " ", "bad", "word", "C++", "+", "_", "é", "\n", "S&m"])).map(
        "".join
    )
)
def test_the_answer_is_that_of_one_expression_for_all_entries(text):
    everything = re.compile(r"(?:\W|^)(" + "|".join(map(re.escape, WORDS)) + r")(?:\W|$)")
    assert dropped(text) == bool(everything.search(text.lower()))


def test_a_list_is_read_without_blank_lines_and_in_lower_case(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("Ass\n\n bad word \n")
    assert read_list(path) == {"ass", "bad word"}
    assert make_bad_words(path=str(path))(Document("p", "An ass.", "c4")) == Drop("bad_word", detail="ass")


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe", None])
def test_a_list_that_cannot_be_used_is_an_error(tmp_path, content):
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="list of bad words"):
        read_list(path)
