"""ARPA, the text format of n-gram models: written as lmplz writes it, read as KenLM reads it.

Entry points: `write` for what training estimated, `convert` from an ARPA file, plain or `.gz`, made by lmplz,
SRILM and others to a model file. A malformed file is an error that names the line.
"""

from __future__ import annotations

import gzip
import math
import re
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from criadero.corpus.extra import require_extra
from criadero.corpus.ngram import hashing, table
from criadero.corpus.ngram.external import Column, blocks
from criadero.corpus.ngram.model import NgramModel
from criadero.corpus.ngram.vocabulary import BLANKS, EOS, SPECIAL_WORDS, UNK
from criadero.errors import DataError, FormatError
from criadero.files import atomic_write
from criadero.notices import say_once

if TYPE_CHECKING:
    import pyarrow as pa

    from criadero.corpus.ngram.trie import Trie

MAX_LINE_BYTES = 1 << 20
MAX_NGRAMS = 1 << 31
UNKNOWN_WORD_LOG10 = -100.0
"""Probability of `<unk>` in a model that has none, as KenLM takes it."""

_WRITE_ROWS = 1 << 17
_READ_ROWS = 1 << 16
_MEMORY_BYTES = 1 << 30  # for sorting what was read
_COUNT = re.compile(rb"ngram +(\d{1,2}) *= *(\d{1,12})")
_SECTION = re.compile(rb"\\(\d{1,2})-grams:")
_TO_BLANK = bytes.maketrans(BLANKS.encode(), b" " * len(BLANKS))


def write(path: Path, words: list[str], trie: Trie) -> None:
    """Write a model in ARPA format, atomically; compressed if the name ends in `.gz`.

    Raises:
        DataError: pyarrow is not installed.
    """
    with require_extra("writing ARPA"):
        import pyarrow as pa
    with atomic_write(path) as file, _compressed(file, path) as stream:
        stream.write(b"\\data\\\n")
        for order, count in enumerate(trie.counts.sizes(), start=1):
            stream.write(b"ngram %d=%d\n" % (order, count))
        vocabulary = pa.array(words, pa.string())
        for order, count in enumerate(trie.counts.sizes(), start=1):
            stream.write(b"\n\\%d-grams:\n" % order)
            for start, stop in blocks(count, _WRITE_ROWS):
                stream.write(_lines(vocabulary, trie, order, start, stop))
        stream.write(b"\n\\end\\\n")


def _lines(vocabulary: pa.Array, trie: Trie, order: int, start: int, stop: int) -> pa.Buffer:
    """Return the lines of n-grams; numbers are the shortest that give the same float32."""
    import pyarrow as pa
    import pyarrow.compute as pc

    words = [vocabulary.take(pa.array(ids)) for ids in trie.words(order, start, stop)]
    columns = [pc.binary_join_element_wise(*words, " ") if len(words) > 1 else words[0]]
    probability, backoff = trie.values(order, start, stop)
    columns.insert(0, pa.array(probability).cast(pa.string()))
    if backoff is not None:
        columns.append(pa.array(backoff).cast(pa.string()))
    lines = pc.binary_join_element_wise(pc.binary_join_element_wise(*columns, "\t"), "", "\n")
    return lines.buffers()[2]


@contextmanager
def _compressed(file: IO[bytes], path: Path) -> Iterator[IO[bytes]]:
    if path.suffix != ".gz":
        yield file
        return
    with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as stream:
        yield stream  # type: ignore[misc]


@contextmanager
def open_any(path: Path) -> Iterator[NgramModel]:
    """Open a model file, or an ARPA file (`.arpa`, `.arpa.gz`) by way of a temporary model file.

    Raises:
        FormatError, DataError: as `convert` and `NgramModel.open`.
    """
    if not path.name.endswith((".arpa", ".arpa.gz")):
        yield NgramModel.open(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "model"
        convert(path, made, folder=Path(folder))
        yield NgramModel.open(made)


def convert(path: Path, out: Path, *, folder: Path) -> table.Header:
    """Read an ARPA file and write it as a model file.

    Args:
        folder: for temporary files.

    Raises:
        FormatError: malformed, with the number of the line.
        DataError: it cannot be read, or names an n-gram twice.
    """
    model = _Reader(path, folder).read()
    contents = table.Contents(
        words=model.words,
        unigrams=model.unigrams,
        counts=(len(model.words), *(order.rows for order in model.orders)),
        records=model.records,
        source=f"read from {path.name}",
    )
    return table.write(out, contents, folder=folder, memory_bytes=_MEMORY_BYTES)


@dataclass(frozen=True)
class _OrderColumns:
    """The n-grams of one order on disk: word ids from the last to the first, and the two numbers."""

    words: list[Column]
    probability: Column
    backoff: Column

    @property
    def rows(self) -> int:
        return self.probability.rows

    def append(self, ids: list[list[int]], numbers: list[tuple[float, float]]) -> None:
        for column, values in zip(self.words, np.array(ids, np.uint32).T[::-1], strict=True):
            column.append(values)
        probability, backoff = np.array(numbers, np.float32).T
        self.probability.append(probability)
        self.backoff.append(backoff)

    def records(self, seed: int) -> Iterator[NDArray[np.void]]:
        for start, stop in blocks(self.rows, _READ_ROWS):
            block = np.zeros(stop - start, table.RECORD)
            number = hashing.first(self.words[0].read(start, stop), seed)
            for column in self.words[1:]:
                number = hashing.extend(number, column.read(start, stop))
            block["number"] = number
            block["probability"] = self.probability.read(start, stop)
            block["backoff"] = self.backoff.read(start, stop)
            yield block


@dataclass(frozen=True)
class _Model:
    words: list[str]
    unigrams: NDArray[np.float32]
    orders: list[_OrderColumns] = field(default_factory=list)

    def records(self, seed: int) -> Iterator[NDArray[np.void]]:
        for order in self.orders:
            yield from order.records(seed)


class _Reader:
    """Reads an ARPA file line by line and knows where it is."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._path = path
        self._folder = folder
        self._line = 0

    def read(self) -> _Model:
        try:
            with gzip.open(self._path) if self._path.suffix == ".gz" else self._path.open("rb") as stream:
                return self._model(stream)  # type: ignore[arg-type]
        except (EOFError, gzip.BadGzipFile, zlib.error) as problem:
            raise self._fault(f"the compressed data is damaged: {problem}") from None
        except OSError as problem:
            raise DataError(f"`{self._path}` cannot be read: {problem.strerror or problem}") from None

    def _model(self, stream: IO[bytes]) -> _Model:
        counts = self._counts(stream)
        ids, words, unigrams = self._vocabulary(stream, counts[0], highest=len(counts) == 1)
        model = _Model(words, unigrams)
        for order, count in enumerate(counts[1:], start=2):
            self._expect_section(stream, order)
            columns = self._columns(order)
            model.orders.append(columns)
            self._section(stream, columns, ids, order, count, highest=order == len(counts))
        if self._next_text(stream) != b"\\end\\":
            raise self._fault("expected `\\end\\` after the last n-gram")
        return model

    def _columns(self, order: int) -> _OrderColumns:
        def column(name: str, dtype: str) -> Column:
            return Column(self._folder / f"arpa-{order}-{name}", dtype)

        words = [column(str(j), "<u4") for j in range(order)]
        return _OrderColumns(words, column("probability", "<f4"), column("backoff", "<f4"))

    def _counts(self, stream: IO[bytes]) -> list[int]:
        while (line := self._next_line(stream)).strip() != b"\\data\\":
            if not line:
                raise self._fault("no `\\data\\` line: this is no ARPA file")
        counts: list[int] = []
        while line := self._next_line(stream).strip():
            found = _COUNT.fullmatch(line)
            if not found or int(found[1]) != len(counts) + 1 or len(counts) == table.MAX_ORDER:
                raise self._fault(f"expected `ngram {len(counts) + 1}=COUNT`, found {line[:80]!r}")
            counts.append(int(found[2]))
            if counts[-1] > MAX_NGRAMS:
                raise self._fault(f"{counts[-1]:,} n-grams are more than this program reads")
        if not counts:
            raise self._fault("no counts of n-grams after `\\data\\`")
        return counts

    def _vocabulary(
        self, stream: IO[bytes], count: int, *, highest: bool
    ) -> tuple[dict[bytes, int], list[str], NDArray[np.float32]]:
        self._expect_section(stream, 1)
        ids = {word.encode(): number for number, word in enumerate(SPECIAL_WORDS)}
        seen: dict[int, tuple[float, float]] = {}
        for _ in range(count):
            parts = self._ngram(stream, 1, highest=highest)
            number = ids.setdefault(parts[1], len(ids))
            if number in seen:
                raise self._fault(f"the word {parts[1]!r} is named twice")
            seen[number] = self._numbers(parts, 1)
        for number in (1, EOS):
            if number not in seen:
                raise self._fault(f"the model has no word `{SPECIAL_WORDS[number]}`")
        if UNK not in seen:
            say_once(
                f"`{self._path}` has no `<unk>`: unknown words get log10 probability {UNKNOWN_WORD_LOG10}"
            )
            seen[UNK] = (UNKNOWN_WORD_LOG10, 0.0)
        try:
            words = [word.decode() for word in ids]
        except UnicodeDecodeError as problem:
            raise self._fault(f"a word above is not UTF-8: {problem.object[:80]!r}") from None
        return ids, words, np.array([seen[number] for number in range(len(ids))], np.float32)

    def _section(
        self,
        stream: IO[bytes],
        columns: _OrderColumns,
        ids: dict[bytes, int],
        order: int,
        count: int,
        *,
        highest: bool,
    ) -> None:
        for start, stop in blocks(count, _READ_ROWS):
            rows, numbers = [], []
            for _ in range(start, stop):
                parts = self._ngram(stream, order, highest=highest)
                try:
                    rows.append([ids[word] for word in parts[1 : order + 1]])
                except KeyError as problem:
                    raise self._fault(f"the word {problem.args[0]!r} is not among the 1-grams") from None
                numbers.append(self._numbers(parts, order))
            columns.append(rows, numbers)

    def _ngram(self, stream: IO[bytes], order: int, *, highest: bool) -> list[bytes]:
        """Return probability, words and, if it is there, backoff."""
        line = self._next_line(stream)
        parts = line.translate(_TO_BLANK).split(b" ")
        if b"" in parts:
            parts = [part for part in parts if part]
        if len(parts) == order + 1 or (len(parts) == order + 2 and not highest):
            return parts
        raise self._fault(
            f"expected a probability, {order} word{'s' if order > 1 else ''}"
            f"{'' if highest else ' and perhaps a backoff'}, found {line[:80]!r}"
        )

    def _numbers(self, parts: list[bytes], order: int) -> tuple[float, float]:
        try:
            probability = float(parts[0])
            backoff = float(parts[order + 1]) if len(parts) > order + 1 else 0.0
        except ValueError as problem:
            raise self._fault(f"not a number: {problem}") from None
        if not (-math.inf < probability <= 0 and -math.inf <= backoff < math.inf):
            raise self._fault(f"impossible log10 probability or backoff: {probability}, {backoff}")
        return probability, backoff

    def _expect_section(self, stream: IO[bytes], order: int) -> None:
        found = _SECTION.fullmatch(line := self._next_text(stream))
        if not found or int(found[1]) != order:
            raise self._fault(f"expected `\\{order}-grams:`, found {line[:80]!r}")

    def _next_text(self, stream: IO[bytes]) -> bytes:
        """Return the next line that is not blank, stripped; empty at the end."""
        while line := self._next_line(stream):
            if text := line.strip():
                return text
        return b""

    def _next_line(self, stream: IO[bytes]) -> bytes:
        line = stream.readline(MAX_LINE_BYTES + 1)
        self._line += 1
        if len(line) > MAX_LINE_BYTES:
            raise self._fault(f"a line of more than {MAX_LINE_BYTES:,} bytes")
        return line

    def _fault(self, what: str) -> FormatError:
        return FormatError(f"ARPA file `{self._path}`, line {self._line:,}: {what}")
