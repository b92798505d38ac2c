"""Sentence counts, held against NLTK's on real pages and against sentences counted by hand."""

import gzip
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from criadero.corpus.sources.c4 import sentences

SAMPLE = Path(__file__).parents[4] / "samples" / "raw" / "c4" / "c4-demo.json.gz"
SPACED_STOPS = re.compile(r"\.\s\.")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dr. Roberts has enough words and ends well!", 1),
        ("Open Access. Powered by Scholars. Published by Universities.", 3),
        ("This line looks like it has three sentences...but it's actually just 1.", 1),
        ('He said "Stop it now." Then he left the house at 5 p.m. in a hurry.', 2),
        ("Is it true? Yes! It is", 3),
        ("It ended. \n And it went on", 2),
        ("Only a line end\nends no sentence", 1),
        ("Wow!! It ended.", 2),
        ("It ended. Wow!!", 3),
        ("There is no. 5 of it.", 2),
        ("", 0),
    ],
)
def test_sentences_are_those_a_reader_of_punkt_expects(text, expected):
    assert sentences.count(text) == expected


def test_counts_are_those_of_nltk_save_where_full_stops_stand_apart():
    golden = json.loads(Path(__file__).with_name("nltk_sentences.json").read_text())["sentences"]
    with gzip.open(SAMPLE, "rt", encoding="utf-8") as stream:
        pages = [json.loads(line)["text"] for line in stream]
    compared = [
        (sentences.count(p), n) for p, n in zip(pages, golden, strict=True) if not SPACED_STOPS.search(p)
    ]
    assert len(compared) > 290
    assert [ours for ours, _ in compared] == [nltk for _, nltk in compared]


PIECES = st.sampled_from(
    ["a", "B", "no", "Dr", " ", "\n", ".", "!", "?", '"', ")", "...", ". .", "5", "\u2029", "\t"]
)


@settings(max_examples=500, deadline=None)
@given(st.lists(PIECES, max_size=60).map("".join) | st.text(max_size=60), st.integers(1, 4))
def test_reading_only_the_first_lines_gives_the_same_answer(text, at_least):
    assert sentences.has(text, at_least) == (sentences.count(text) >= at_least)
