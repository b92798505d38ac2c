"""The recipe for books: `kind = "books"`, Gutenberg texts, EPUB and JSON lines, in files, folders or both.

Entry points: `BooksConfig` and `stages`. What Project Gutenberg puts around a book is removed, then books
that are contained in others; of copies the one of the input named first stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from criadero.config import Config
from criadero.corpus.document import BadRecord, Document, Drop
from criadero.corpus.engine.stage import DocumentFunction, Each, Exchange, Read, Reader, Recipe, Split
from criadero.corpus.sources.books.decode import decode
from criadero.corpus.sources.books.epub import EpubFault, read_epub
from criadero.corpus.sources.books.gutenberg import header_fields, without_boilerplate
from criadero.corpus.sources.books.near_copies import PRIORITY, Metric, make_near_copies
from criadero.corpus.sources.inputs import InputFile, input_files
from criadero.corpus.sources.records import UNREADABLE, Place, open_bytes
from criadero.corpus.sources.text import SUFFIXES, read_file
from criadero.files import format_bytes

# A hundred long novels, about a minute's work.
SPLIT_BYTES = 1 << 26
# The longest works of literature have 25 MB.
MAX_BOOK_BYTES = 1 << 26


class BooksConfig(Config):
    """A source of kind `books`.

    Attributes:
        kind: names this kind of source.
        overlap: a book goes if more than this share of it is in another one; the paper's 90 %.
        metric: share of what: `containment` of the smaller book, `jaccard` of both together.
    """

    kind: Literal["books"] = "books"
    overlap: float = Field(default=0.9, gt=0, lt=1)
    metric: Metric = "containment"


def stages(config: BooksConfig, *, source: str, inputs: Sequence[Path | str]) -> Recipe:
    """Return the recipe for `inputs`, files and folders, the first of them first in priority.

    Raises:
        DataError: an input is missing or has no book in it.
    """
    near_copies: dict[str, Any] = {"threshold": config.overlap, "metric": config.metric}
    return (
        Read(tuple(_splits(inputs)), make_reader, {"source": source}),
        Each("boilerplate", make_stripper),
        Exchange("near_copies", make_near_copies, near_copies),
    )


def make_reader(*, source: str) -> Reader:
    """Return the function that reads the books of a split."""

    def read(split: Split) -> Iterator[Document | BadRecord]:
        for name, path in split.parts["books"]:
            for book in _read(Path(split.path, path), name, source):
                if isinstance(book, Document):
                    yield book.with_metadata(**{PRIORITY: str(split.parts[PRIORITY])})
                else:
                    yield book

    return read


def make_stripper() -> DocumentFunction:
    """Return the function that takes off what Project Gutenberg put around a book."""

    def strip(document: Document) -> Document | Drop:
        text = without_boilerplate(document.text)
        if not text.strip():
            return Drop("no_text")
        fields = header_fields(document.text)
        return document.with_text(text).with_metadata(**{**fields, **document.metadata})

    return strip


def _read(path: Path, name: str, source: str) -> Iterator[Document | BadRecord]:
    if path.suffix == ".epub":
        yield _read_epub(path, name, source)
    elif ".txt" in path.suffixes:
        yield _read_txt(path, name, source)
    else:
        yield from _told_apart(read_file(path, Place(name, source, MAX_BOOK_BYTES)), name)


def _read_txt(path: Path, name: str, source: str) -> Document | BadRecord:
    try:
        with open_bytes(path) as stream:
            data = stream.read(MAX_BOOK_BYTES + 1)
    except UNREADABLE as problem:
        return BadRecord(name, "unreadable", str(problem))
    if len(data) > MAX_BOOK_BYTES:
        return BadRecord(name, "too_long", f"more than {format_bytes(MAX_BOOK_BYTES)}")
    return Document(name, decode(data), source)


def _read_epub(path: Path, name: str, source: str) -> Document | BadRecord:
    try:
        book = read_epub(path)
    except EpubFault as fault:
        return BadRecord(name, fault.reason, str(fault))
    return Document(name, book.text, source, book.fields)


def _told_apart(books: Iterator[Document | BadRecord], name: str) -> Iterator[Document | BadRecord]:
    """Put the file's name before ids: two collections may both have a number 5, or one have two."""
    seen: dict[str, int] = {}
    for book in books:
        if isinstance(book, BadRecord):
            yield book
            continue
        identity = book.id if book.id.startswith(f"{name}:") else f"{name}:{book.id}"
        seen[identity] = seen.get(identity, 0) + 1
        mark = f"~{seen[identity]}" if seen[identity] > 1 else ""
        yield Document(identity + mark, book.text, book.source, book.metadata)


def _splits(inputs: Sequence[Path | str]) -> Iterator[Split]:
    """Group the files of each input, in order of name; what two inputs share belongs to the first."""
    left = {file.path: file for file in input_files(inputs, (*SUFFIXES, ".epub"))}
    for priority, root in enumerate(Path(path).absolute() for path in inputs):
        own = [file for file in left.values() if file.path == root or root in file.path.parents]
        for group in _groups(own):
            for file in group:
                del left[file.path]
            folder = root if root.is_dir() else root.parent
            books = [[file.name, file.path.relative_to(folder).as_posix()] for file in group]
            path = group[0].path if len(group) == 1 else root
            yield Split(
                name=group[0].name,
                path=str(path),
                parts={"books": books if len(group) > 1 else [[group[0].name, ""]], PRIORITY: priority},
            )


def _groups(found: Sequence[InputFile]) -> Iterator[list[InputFile]]:
    group: list[InputFile] = []
    size_bytes = 0
    for file in found:
        group.append(file)
        size_bytes += file.path.stat().st_size
        if size_bytes >= SPLIT_BYTES:
            yield group
            group, size_bytes = [], 0
    if group:
        yield group
