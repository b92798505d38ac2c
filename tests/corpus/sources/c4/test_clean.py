"""C4's cleaning of a page, held against a plain form of its rules and against what recreations do instead."""

import gzip
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from criadero.corpus.document import Document, Drop
from criadero.corpus.sources.c4 import sentences
from criadero.corpus.sources.c4.clean import clean
from linear_time import is_linear

SAMPLE = Path(__file__).parents[4] / "samples" / "raw" / "c4" / "c4-demo.json.gz"
FILLER = "This page starts out with some text. It has two sentences here.\nAnd it has a third one too."


def cleaned(text):
    return clean(Document("page", text, "c4"))


def kept_lines(*lines):
    """Return which of `lines` stay in a page that has enough other sentences."""
    result = cleaned("\n".join([FILLER, *lines]))
    return result.text.split("\n")[2:]


def plain_rules(text):
    """Return what C4's rules leave of a page, or the reason it goes, line by line as they are told."""
    kept, found = [], 0
    for line in text.splitlines():
        line = line.strip()
        if max((len(word) for word in line.split()), default=0) > 1000:
            continue
        line = re.sub(r"\[\d*\]|\[edit\]|\[citation needed\]", "", line)
        ends_well = line[-1:] in {".", "?", "!", '"'} and line[-3:] != "..."
        if not ends_well or len(line.split()) < 5:
            continue
        if "lorem ipsum" in line.lower():
            return "lorem_ipsum"
        if "javascript" in line.lower():
            continue
        if "{" in line:
            return "curly_bracket"
        policies = "terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies"
        if re.search(policies, line.lower()):
            continue
        found += sentences.count(line)
        kept.append(line)
    return "\n".join(kept).strip() if found >= 3 else "too_few_sentences"


def text_or_reason(text):
    result = cleaned(text)
    return result.reason if isinstance(result, Drop) else result.text


MARKS = ["[12]", "[edit]", "[citation needed]", "[]", "...", ".", "?", "!", '"', "'", "{", " ", "\t"]
WORDS = [
    "Dr. Who came by",
    "one two three four",
    "lorem",
    "ipsum",
    "javascript",
    "JavaScript",
    "Terms of",
    "use",
]
OTHERS = ["uses cookies", "\u2028", "\n", "\r\n", "x" * 1000, "x" * 1001, "no.", "5", "İ", "\u212a"]
PIECES = st.sampled_from([*MARKS, *WORDS, *OTHERS])


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=40).map(" ".join) | st.lists(PIECES, max_size=40).map("".join))
def test_cheap_tests_first_decide_as_the_rules_in_order(text):
    assert text_or_reason(text) == plain_rules(text)


@settings(max_examples=150, deadline=None)
@given(st.text())
def test_no_text_breaks_cleaning_and_cleaning_twice_changes_nothing(text):
    once = cleaned(text)
    if not isinstance(once, Drop):
        assert cleaned(once.text) == once


def test_the_same_rules_on_real_pages():
    pages = real_pages()
    assert [text_or_reason(page) for page in pages] == [plain_rules(page) for page in pages]


def test_of_300_released_pages_cleaning_drops_none_and_edits_none():
    pages = real_pages()
    assert len(pages) == 300
    assert [cleaned(page).text for page in pages] == pages


def test_five_words_make_a_line_not_three_as_in_datatrove():
    assert kept_lines("Four words in it.", "Now there are five words.") == ["Now there are five words."]


def test_three_sentences_make_a_page_not_five_as_in_the_paper_on_arxiv():
    three = "The first sentence is here. The second sentence is here.\nThe third sentence is here."
    assert cleaned(three).text == three
    assert cleaned("The first sentence is here.\nThe second sentence is here.") == Drop(
        "too_few_sentences", 2
    )


def test_an_apostrophe_is_no_end_mark_as_in_datatrove():
    assert kept_lines("He said that it 'was so'", 'He said that it "was so"') == ['He said that it "was so"']


def test_words_are_counted_after_citations_are_gone_not_before_as_in_datatrove():
    assert kept_lines("These are four [1] words.", "Here are [2] five more words.") == [
        "Here are  five more words."
    ]


def test_a_citation_after_the_end_mark_does_not_cost_the_line():
    lines = [
        "And some of these lines end with citations.[3]",
        "Or ask for one[citation needed]. Or edit.[edit]",
    ]
    assert kept_lines(*lines) == ["And some of these lines end with citations.", "Or ask for one. Or edit."]


def test_a_space_left_by_a_citation_hides_the_end_mark_as_in_the_code_of_record():
    assert kept_lines("And this line ends with a space. [3]") == []


def test_javascript_is_found_inside_words_and_costs_a_line_not_a_page_as_in_dolma():
    assert kept_lines("All of the javascripts are here now.", "This line is still here now.") == [
        "This line is still here now."
    ]


def test_javascript_is_looked_for_before_a_curly_bracket():
    assert kept_lines("JavaScript is like { so it is.", "This line is still here now.") == [
        "This line is still here now."
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [("Here is some Lorem Ipsum for you.", "lorem_ipsum"), ("fn foo(a) { bar = a + 10; }.", "curly_bracket")],
)
def test_one_line_costs_the_page(line, reason):
    assert cleaned(f"{FILLER}\n{line}") == Drop(reason)


def test_a_line_that_goes_anyway_costs_no_page():
    assert cleaned(f"{FILLER}\nfunction() {{ }}\nlorem ipsum").text == FILLER


def test_policy_lines_go():
    lines = [
        "You'd better follow our Terms of Use!",
        "This site of ours uses cookies.",
        "I use cookies every day.",
    ]
    assert kept_lines(*lines, "This line should be okay.") == ["This line should be okay."]


def test_an_ellipsis_and_missing_marks_cost_a_line():
    assert (
        kept_lines("Social and Behavioral Sciences go on...", "All Institutions and Open Access Articles")
        == []
    )


def test_a_word_of_1001_characters_costs_a_line_and_one_of_1000_does_not():
    line = "five words are in here {}."
    assert kept_lines(line.format("x" * 1000)) == []
    assert kept_lines(line.format("x" * 999)) == [line.format("x" * 999)]


def test_twice_the_text_takes_less_than_three_times_as_long():
    line = "Some words [1] stand here and end. " * 8 + "javascript."
    assert is_linear(cleaned, lambda lines: "\n".join([line] * lines), 4000)


def real_pages():
    with gzip.open(SAMPLE, "rt", encoding="utf-8") as stream:
        return [json.loads(line)["text"] for line in stream]
