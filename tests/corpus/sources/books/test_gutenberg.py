"""What Project Gutenberg puts around books, in the forms it had since 1971; header lines are real ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criadero.corpus.sources.books.gutenberg import header_fields, without_boilerplate
from linear_time import is_linear

BOOK = "CHAPTER I\n\nIt was a dark night.\n\nThe wind blew.\n\nTHE END"


@pytest.mark.parametrize(
    "start",
    [
        "*** START OF THE PROJECT GUTENBERG EBOOK, THE ADVENTURES OF SHERLOCK HOLMES ***",
        "*** START OF THIS PROJECT GUTENBERG EBOOK HISTORY OF THE UNITED STATES ***",
        "*** START OF THE PROJECT GUTENBERG EBOOK 1661 ***",
        "***START OF THE PROJECT GUTENBERG EBOOK EMMA***",
        "**START OF THE PROJECT GUTENBERG EBOOK EMMA**",
        "*** START OF THE PROJECT GUTENBERG ETEXT EMMA ***",
        "*** START OF THE COPYRIGHTED PROJECT GUTENBERG EBOOK A GUIDE ***",
        "*** START OF THIS PROJECT GUTENBERG EBOOK A VERY LONG TITLE THAT GOES ON\nIN A SECOND LINE ***",
        "*** START OF THE PROJECT GUTENBERG EBOOK WITHOUT AN END",
        "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*",
        "*END THE SMALL PRINT! FOR PUBLIC DOMAIN EBOOKS*Ver.02/11/02*END*",
        "*END* THE SMALL PRINT! FOR PUBLIC DOMAIN E-TEXTS*Ver.10/04/01*END*",
    ],
)
def test_the_header_ends_at_each_form_of_its_mark(start: str) -> None:
    text = f"The Project Gutenberg EBook of Emma\n\nTitle: Emma\n\n{start}\n\n\n{BOOK}\n"
    assert without_boilerplate(text) == BOOK


@pytest.mark.parametrize(
    "end",
    [
        "*** END OF THE PROJECT GUTENBERG EBOOK, THE ADVENTURES OF SHERLOCK HOLMES ***",
        "*** END OF THIS PROJECT GUTENBERG EBOOK EMMA ***",
        "***END OF THE PROJECT GUTENBERG EBOOK EMMA***",
        "End of the Project Gutenberg EBook of Emma, by Jane Austen\n\n*** END OF THIS PROJECT GUTENBERG",
        "End of Project Gutenberg's Emma, by Jane Austen",
        "End of The Project Gutenberg Etext of Emma",
        "END OF PROJECT GUTENBERG EDITION OF EMMA",
        "End of this Project Gutenberg Etext of Emma",
        "Ende dieses Projekt Gutenberg Etextes Faust",
        "Fin de Project Gutenberg's Candide",
        "Fin del Proyecto Gutenberg EBook de Don Quijote",
        "*** START: FULL LICENSE ***",
        "***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN EBOOKS**START***",
    ],
)
def test_the_footer_begins_at_each_form_of_its_mark(end: str) -> None:
    text = f"header\n*** START OF THE PROJECT GUTENBERG EBOOK EMMA ***\n{BOOK}\n\n{end}\nlicence\n"
    assert without_boilerplate(text) == BOOK
    assert without_boilerplate(f"{BOOK}\n\n  {end}\nlicence") == BOOK


@pytest.mark.parametrize(
    "credit",
    [
        "Produced by Curtis Weyant, M and the Online Distributed\nProofreading Team at http://www.pgdp.net",
        "E-text prepared by Al Haines",
        "This eBook was produced by David Widger",
        "This etext was prepared by Sue Asscher",
        "Scanned and proofed by Ron Burkey",
        "Transcribed from the 1896 Macmillan edition by David Price",
        "(Additional editing by Jose Menendez)",
        "HTML version by Walter Debeuf",
        "Credits: Al Haines and the Online Distributed Proofreading Team",
        "Note: Project Gutenberg also has an HTML version of this file\nwhich includes the illustrations.",
        "Note: Images of the original pages are available through\nInternet Archive.",
        "(This file was produced from images generously made available by The Internet Archive)",
        "[Transcriber's note: spelling as printed.]",
        "[Transcriber's note: spelling as printed.\n\nAlso italics.\n\nAnd more.]",
        "TRANSCRIBER’S NOTE:\n\nObvious errors were corrected.",
        "+---------+\n| Transcriber's Note: spelling as printed, and more |\n+--------+",
    ],
)
def test_credits_and_notes_of_the_makers_go(credit: str) -> None:
    text = f"*** START OF THE PROJECT GUTENBERG EBOOK EMMA ***\n\nEMMA\n\n{credit}\n\n{BOOK}"
    assert without_boilerplate(text) == f"EMMA\n\n{BOOK}"


def test_a_note_at_the_end_goes_with_the_footer() -> None:
    text = (
        f"*** START OF THE PROJECT GUTENBERG EBOOK EMMA ***\n{BOOK}\n\n\nTranscriber's Notes\n\nPage 5: x\n"
    )
    assert without_boilerplate(text + "*** END OF THE PROJECT GUTENBERG EBOOK EMMA ***") == BOOK


def test_a_book_without_marks_is_kept_as_it_is() -> None:
    text = "Produced by hand, bread is better.\n\n  It was.\n\n\n\nTranscriber's notes are a genre."
    assert without_boilerplate(text) == text
    assert header_fields(text) == {}


def test_a_credit_left_by_others_who_cut_the_header_goes_too() -> None:
    credit = "Produced by Curtis Weyant and the Online Distributed\nProofreading Team"
    assert without_boilerplate(f"{credit}\n\n{BOOK}") == BOOK


def test_a_book_that_speaks_of_production_keeps_its_words() -> None:
    text = "*** START OF THE PROJECT GUTENBERG EBOOK X ***\n" + "\n\n".join(
        [*(f"Paragraph {n}." for n in range(20)), "Produced by Smith from coal, gas burns."]
    )
    assert without_boilerplate(text).endswith("gas burns.")


def test_small_print_quoted_deep_in_a_book_is_no_header() -> None:
    text = "word " * 10_000 + "\n*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*END*\nend"
    assert without_boilerplate(text).startswith("word word")


def test_the_header_names_the_book() -> None:
    text = """The Project Gutenberg EBook of History
Title: History of the United States
       and its People

Author: Charles A. Beard

Release Date: October 28, 2005 [EBook #16960]

Language: English

*** START OF THIS PROJECT GUTENBERG EBOOK HISTORY ***
Title: not this one
"""
    assert header_fields(text) == {
        "title": "History of the United States and its People",
        "author": "Charles A. Beard",
        "language": "English",
        "gutenberg": "16960",
    }


_LINES = st.sampled_from(
    ["*** START OF THE PROJECT GUTENBERG EBOOK X ***", "End of Project Gutenberg's X", "", "text",
     "Produced by A from B", "[Transcriber's note: a", "]", "*END*THE SMALL PRINT!", "***", "Title: x"]
)  # fmt: skip


@given(st.lists(_LINES, max_size=12).map("\n".join))
def test_what_is_left_is_part_of_the_text(text: str) -> None:
    left = without_boilerplate(text)
    kept = iter(text.split("\n"))
    assert all(any(line == other for other in kept) for line in left.split("\n") if line)


@given(st.text(max_size=300))
def test_any_text_without_marks_is_left_as_it_is(text: str) -> None:
    assert without_boilerplate(text) == text.strip("\n")
    assert header_fields(text) == {}


@pytest.mark.parametrize(
    "unit", ["*", "\n", "End of ", " ", "[Transcriber's note\n\n", "*** START OF ", "Fin a "]
)
def test_twice_the_text_takes_less_than_three_times_as_long(unit: str) -> None:
    assert is_linear(without_boilerplate, lambda length: (unit * length)[:length], 200_000)
