"""Books in books: what goes and stays, checked against sets of word tuples; the bugs of others by name."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from criadero.corpus.document import BadRecord, Document
from criadero.corpus.engine.inline import InlineResult, run_inline
from criadero.corpus.engine.stage import Exchange, Read, Reader, Split
from criadero.corpus.sources.books import near_copies
from criadero.corpus.sources.books.near_copies import Book, Overlap, decide, make_near_copies
from criadero.corpus.sources.books.recipe import BooksConfig, stages

VOCABULARY = [f"w{n}" for n in range(5000)]


def prose(seed: int, words: int) -> str:
    """Return words drawn at random: two seeds share no run of eight."""
    drawn = random.Random(seed).choices(VOCABULARY, k=words)
    return ". ".join(" ".join(drawn[n : n + 12]) for n in range(0, words, 12))


def shingle_set(text: str) -> set[tuple[str, ...]]:
    """Return the runs of eight normalised words, the naive way."""
    words = [unicodedata.normalize("NFKC", w).casefold() for w in re.findall(r"[^\W_]+", text)]
    size = min(8, len(words))
    return {tuple(words[n : n + size]) for n in range(len(words) - size + 1)}


def containment(one: str, other: str) -> float:
    """Return the share of the smaller text's shingles that the other has."""
    a, b = shingle_set(one), shingle_set(other)
    return len(a & b) / min(len(a), len(b))


def make_given(*, texts: list[list[str]]) -> Reader:
    """Return a reader of books given as they are: for each priority its texts."""

    def read(split: Split) -> Iterable[Document | BadRecord]:
        for number, text in enumerate(texts[split.start]):
            metadata = {near_copies.PRIORITY: str(split.start)}
            yield Document(f"{split.start}/{number}", text, "books", metadata)

    return read  # type: ignore[return-value]


def run(*collections: list[str], metric: str = "containment", threshold: float = 0.9) -> InlineResult:
    """Run the step over collections of books, the first of them first in priority."""
    splits = tuple(Split(str(n), __file__, start=n) for n in range(len(collections)))
    step = Exchange("near_copies", make_near_copies, {"threshold": threshold, "metric": metric})
    return run_inline((Read(splits, make_given, {"texts": list(collections)}), step))


def kept(result: InlineResult) -> list[str]:
    """Return the ids that stayed."""
    return [document.id for document in result.documents]


NOVEL, OTHER, THIRD = prose(1, 6000), prose(2, 6000), prose(3, 6000)


def test_unrelated_books_stay() -> None:
    assert kept(run([NOVEL, OTHER], [THIRD])) == ["0/0", "0/1", "1/0"]


def test_bug_an_abridged_book_is_missed_by_simhash() -> None:
    words = NOVEL.split()
    result = run([" ".join(words[:2000]), NOVEL])
    assert kept(result) == ["0/1"]
    row = next(row for row in result.ledger if row.outcome == "dropped")
    assert (row.reason, row.detail, row.score) == ("contained", "0/1", 1.0)


def test_bug_the_earlier_book_is_kept_even_if_the_later_contains_it() -> None:
    anthology = OTHER + "\n\n" + NOVEL + "\n\n" + THIRD
    assert kept(run([NOVEL], [anthology])) == ["1/0"]
    assert kept(run([anthology], [NOVEL])) == ["0/0"]


def test_bug_ids_shared_by_two_collections_decide_for_each_other(tmp_path: Path) -> None:
    for folder, texts in {"pg19": [NOVEL, OTHER], "books3": [THIRD, NOVEL]}.items():
        (tmp_path / folder).mkdir()
        for number, text in enumerate(texts):
            (tmp_path / folder / f"{number}.txt").write_text(text)
    inputs = [tmp_path / "pg19", tmp_path / "books3"]
    result = run_inline(stages(BooksConfig(), source="books", inputs=inputs))
    assert kept(result) == ["pg19/0.txt", "pg19/1.txt", "books3/0.txt"]
    dropped = [(row.id, row.detail) for row in result.ledger if row.outcome == "dropped"]
    assert dropped == [("books3/1.txt", "pg19/0.txt")]


def test_bug_a_book_that_raises_is_kept_or_lost_in_silence(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(NOVEL)
    (tmp_path / "b.epub").write_bytes(b"not a zip")
    (tmp_path / "c.jsonl").write_text('{"text": 5}\n{"text": "\\ud800"}\n{"text": "' + "word " * 20 + '"}\n')
    result = run_inline(stages(BooksConfig(), source="books", inputs=[tmp_path]))
    name = tmp_path.name
    bad = [(row.id, row.reason) for row in result.ledger if row.outcome == "bad"]
    assert bad == [
        (f"{name}/b.epub", "damaged"),
        (f"{name}/c.jsonl:1", "no_text"),
        (f"{name}/c.jsonl:2", "lone_surrogate"),
    ]
    assert kept(result) == [f"{name}/a.txt", f"{name}/c.jsonl:3"]


def test_bug_all_books_are_held_in_memory() -> None:
    """RedPajama reads every book before it compares the first two."""
    step, at_once = make_near_copies(threshold=0.9, metric="containment"), []

    class Library:
        def read(self, places: Iterable[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], Document]]:
            wanted = list(places)
            at_once.append(len(wanted))
            yield from ((place, Document(str(place), NOVEL, "books")) for place in wanted)

    pairs = [{"split": 0, "row": n, "other_split": 1, "other_row": n} for n in range(100)]
    counts = {"shared": 90, "plain": 90, "sampled": 90, "other_sampled": 90}
    dropped = step.combine(pa.Table.from_pylist([pair | counts for pair in pairs]), Library())
    assert len(dropped) == 100
    assert sum(at_once) == 200
    assert max(at_once) <= 32


def test_case_punctuation_and_compatibility_forms_do_not_tell_books_apart() -> None:
    other = NOVEL.upper().replace(". ", " — ").replace("W1", "Ｗ１")
    assert kept(run([NOVEL], [other])) == ["0/0"]


def test_a_copy_in_a_later_input_goes_whichever_is_a_little_longer() -> None:
    longer = NOVEL + " " + prose(9, 200)
    assert kept(run([NOVEL], [longer])) == ["0/0"]
    assert kept(run([longer], [NOVEL])) == ["0/0"]
    assert kept(run([NOVEL, longer])) == ["0/1"]


@pytest.mark.parametrize(("share", "stays"), [(0.86, True), (0.95, False)])
def test_the_threshold_is_on_exact_shingles(share: float, stays: bool) -> None:
    words = NOVEL.split()
    cut = int(share * 3000)
    text = " ".join(words[:cut]) + " " + prose(8, 3000 - cut)
    assert (containment(text, NOVEL) <= 0.9) == stays
    result = run([NOVEL, text])
    assert len(result.documents) == 1 + stays
    scores = [row.score for row in result.ledger if row.outcome == "dropped"]
    assert scores == ([] if stays else [pytest.approx(containment(text, NOVEL), abs=1e-12)])


def test_chains_end_at_the_longest_book() -> None:
    words = NOVEL.split()
    chain = [" ".join(words[:count]) for count in (1500, 3000, 6000)]
    result = run(chain)
    assert kept(result) == ["0/2"]
    assert {row.detail for row in result.ledger if row.outcome == "dropped"} == {"0/2"}


def test_the_result_does_not_depend_on_the_order_of_the_pairs() -> None:
    books = [Book((0, n), f"b{n}", n % 2, 1000 - 30 * n) for n in range(8)]
    overlaps = [
        Overlap(a, b, int(0.95 * b.shingles)) for k, a in enumerate(books) for b in books[k + 1 : k + 4]
    ]
    expected = decide(overlaps, threshold=0.9, metric="containment")
    for seed in range(10):
        random.Random(seed).shuffle(overlaps)
        turned = [Overlap(o.right, o.left, o.shared) for o in overlaps]
        assert decide(turned, threshold=0.9, metric="containment") == expected
    kept_ids = {book.id for book in books if book.place not in expected}
    assert kept_ids
    assert {other for other, _ in expected.values()} <= {book.id for book in books}


def test_jaccard_keeps_what_is_only_contained() -> None:
    words = NOVEL.split()
    collections = [NOVEL, " ".join(words[:2000]), " ".join(words[:5900])]
    assert kept(run(collections, metric="jaccard")) == ["0/0", "0/1"]


def test_short_texts_are_found_when_they_are_copies() -> None:
    assert kept(run(["To be or not to be"], ["to be, or not to be!", "to do", "", ""])) == [
        "0/0",
        "1/1",
        "1/2",
        "1/3",
    ]


def test_a_passage_in_very_many_books_pairs_them_with_few() -> None:
    licence = prose(5, 1500)
    books = [licence + " " + prose(100 + n, 1500) for n in range(near_copies.MAX_HOLDERS + 10)]
    result = run([*books, books[70]])
    assert kept(result) == [f"0/{n}" for n in range(len(books))]


def test_very_many_copies_of_one_book_leave_one() -> None:
    assert kept(run([prose(4, 700)] * (near_copies.MAX_HOLDERS + 20))) == ["0/0"]


def test_decisions_are_those_of_a_naive_comparison() -> None:
    sources = [prose(n, 4000).split() for n in range(3)]
    spans = [(n % 3, 131 * n % 1500, 1200 + 97 * n % 1300) for n in range(24)]
    texts = [" ".join(sources[source][start : start + length]) for source, start, length in spans]
    result = run(texts)
    stayed = [int(document.id[2:]) for document in result.documents]
    assert 5 < len(stayed) < 24
    assert max(containment(texts[a], texts[b]) for a in stayed for b in stayed if a != b) <= 0.9
    for row in result.ledger:
        if row.outcome == "dropped":
            this, other = texts[int(row.id[2:])], texts[int(row.detail[2:])]
            assert row.score == pytest.approx(containment(this, other), abs=1e-12)
            assert row.score > 0.9
            assert len(shingle_set(this)) <= len(shingle_set(other))
