"""The model file, version 1: little-endian, one file to be mapped into memory and shared between processes.

    4096 bytes       magic, then JSON: version, counts, sizes and places of the arrays, sha256 of all after it
    unigrams         [words, 2] float32: log10 probability and log10 backoff by word id
    table            [places, 2] uint64: number of an n-gram (hashing.py), and its two float32 as one
    word_offsets     [words + 1] int64 into
    words            UTF-8, one word after the other

Every array begins at a multiple of 64 bytes. All n-grams of two and more words lie in one table with open
addressing: sorted by number, each at its home or at the next free place after it, so that a search ends at
the first number that is not smaller.

Entry points: `write` for training and import, `read_header` for the model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from criadero.corpus.ngram.external import MAX_BUCKETS, Buckets
from criadero.corpus.ngram.hashing import EMPTY, homes
from criadero.errors import DataError, ResourceError
from criadero.files import atomic_write

MAGIC = b"CRIANGRM"
VERSION = 1
HEADER_BYTES = 4096
ALIGNMENT = 64
MAX_ORDER = 16

_PLACES_PER_NGRAM = 1.5
_SEEDS = 4
_BYTES_PER_NGRAM = 96
DTYPES = {"unigrams": "<f4", "table": "<u8", "word_offsets": "<i8", "words": "|u1"}

RECORD = np.dtype([("number", "<u8"), ("probability", "<f4"), ("backoff", "<f4")])
"""An n-gram of two and more words on its way into the table; log10."""

Records = Callable[[int], Iterator[NDArray[np.void]]]
"""Returns all n-grams of two and more words as `RECORD` blocks, their numbers made with a seed."""


@dataclass(frozen=True)
class Header:
    """What a model file says about itself.

    Attributes:
        order: words of the longest n-gram.
        counts: n-grams per order.
        words_are_tokens: the words are token ids of a tokenizer, in decimals.
        tokenizer_sha256: hash of that tokenizer, None if it was not named.
        source: what the model was made from, for people.
        seed: of the numbers.
        capacity: places that are the home of some number.
        places: length of the table; the last are for numbers that found their home taken.
        longest: how far from its home a number lies at most.
        word_bytes: length of all words in UTF-8.
        sha256: of the file after the header.
    """

    order: int
    counts: tuple[int, ...]
    words_are_tokens: bool
    tokenizer_sha256: str | None
    source: str
    seed: int
    capacity: int
    places: int
    longest: int
    word_bytes: int
    sha256: str = "0" * 64

    def lengths(self) -> dict[str, int]:
        """Elements of each array in file order."""
        return {
            "unigrams": 2 * self.counts[0],
            "table": 2 * self.places,
            "word_offsets": self.counts[0] + 1,
            "words": self.word_bytes,
        }

    def offsets(self) -> tuple[dict[str, int], int]:
        """Where each array starts in the file, and where the file ends, bytes."""
        offsets, end = {}, HEADER_BYTES
        for name, length in self.lengths().items():
            offsets[name] = -(-end // ALIGNMENT) * ALIGNMENT
            end = offsets[name] + length * np.dtype(DTYPES[name]).itemsize
        return offsets, end

    def pack(self) -> bytes:
        """Return the header's `HEADER_BYTES` bytes."""
        text = json.dumps({"version": VERSION, **asdict(self)}).encode()
        if len(MAGIC) + len(text) > HEADER_BYTES:
            raise DataError(f"a description of {len(self.source):,} characters is too long for a model file")
        return (MAGIC + text).ljust(HEADER_BYTES, b"\0")


@dataclass(frozen=True)
class Contents:
    """What goes into a model file.

    Attributes:
        words: vocabulary by id, `<unk>`, `<s>` and `</s>` first.
        unigrams: [words, 2] log10 probability and backoff.
        counts: n-grams per order.
        records: see `Records`.
    """

    words: Sequence[str]
    unigrams: NDArray[np.float32]
    counts: tuple[int, ...]
    records: Records
    source: str
    words_are_tokens: bool = False
    tokenizer_sha256: str | None = None


def write(path: Path, contents: Contents, *, folder: Path, memory_bytes: int) -> Header:
    """Write a model file atomically, within `memory_bytes`, temporary files in `folder`.

    Raises:
        ResourceError: more n-grams than a file can hold.
        DataError: an n-gram is named twice, or a word is too long to store.
    """
    rows = sum(contents.counts[1:])
    capacity = int(rows * _PLACES_PER_NGRAM) + 1
    if capacity >= 1 << 32:
        raise ResourceError(f"{rows:,} n-grams are more than one model file can hold")
    with atomic_write(path) as stream:
        for seed in range(_SEEDS):
            writer = _ArrayWriter(stream)
            writer.array(contents.unigrams.astype("<f4"))
            table = _Table(capacity, writer)
            if not table.fill(contents.records(seed), rows, folder=folder, memory_bytes=memory_bytes):
                continue  # two n-grams share a number; with another seed they will not
            encoded = [word.encode() for word in contents.words]
            writer.array(np.cumsum([0, *map(len, encoded)], dtype="<i8"))
            writer.array(np.frombuffer(b"".join(encoded), np.uint8))
            header = Header(
                order=len(contents.counts),
                counts=contents.counts,
                words_are_tokens=contents.words_are_tokens,
                tokenizer_sha256=contents.tokenizer_sha256,
                source=contents.source,
                seed=seed,
                capacity=capacity,
                places=table.places,
                longest=table.longest,
                word_bytes=sum(map(len, encoded)),
                sha256=writer.sha256(),
            )
            stream.seek(0)
            stream.write(header.pack())
            return header
        raise DataError("an n-gram is named twice")


class _ArrayWriter:
    """Writes aligned arrays after the header and hashes what it writes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self._position = HEADER_BYTES
        stream.seek(0)
        stream.truncate()
        stream.write(bytes(HEADER_BYTES))

    def align(self) -> None:
        self.extend(np.zeros(-self._position % ALIGNMENT, np.uint8))

    def extend(self, values: NDArray[Any]) -> None:
        data = np.ascontiguousarray(values).ravel().view(np.uint8).data
        self._stream.write(data)
        self._hash.update(data)
        self._position += len(data)

    def array(self, values: NDArray[Any]) -> None:
        self.align()
        self.extend(values)

    def sha256(self) -> str:
        return self._hash.hexdigest()


class _Table:
    """The open-addressing table, written from its first place to its last."""

    def __init__(self, capacity: int, writer: _ArrayWriter) -> None:
        self._capacity = capacity
        self._writer = writer
        self._last = np.uint64(0)
        self.places = 0
        self.longest = 0
        writer.align()

    def fill(
        self, records: Iterator[NDArray[np.void]], rows: int, *, folder: Path, memory_bytes: int
    ) -> bool:
        """Write all records; False if two share a number."""
        pieces = min(MAX_BUCKETS, 1 + rows * _BYTES_PER_NGRAM // memory_bytes)
        cuts = [(1 << 64) * piece // pieces for piece in range(1, pieces)]
        buckets = Buckets(folder, np.array(cuts, np.uint64), RECORD)
        for block in records:
            buckets.add(block["number"], block)
        distinct = True
        for block in buckets.drain():
            distinct = distinct and self._add(block[np.argsort(block["number"])])
        # So that every search ends at a place that exists.
        end = np.zeros(max(1, self._capacity - self.places), RECORD)
        end["number"] = EMPTY
        self._write(end)
        return distinct

    def _add(self, block: NDArray[np.void]) -> bool:
        """Write records whose numbers ascend and follow all earlier ones."""
        if not len(block):
            return True
        numbers = block["number"]
        before = np.concatenate([[self._last], numbers[:-1]])
        self._last = numbers[-1]
        if (before == numbers).any() or self._last == EMPTY:
            return False
        home = homes(numbers, self._capacity)
        index = np.arange(len(block))
        ahead = home - index
        ahead[0] = max(ahead[0], self.places)
        place = index + np.maximum.accumulate(ahead)
        self.longest = max(self.longest, int((place - home).max()))
        segment = np.zeros(int(place[-1]) + 1 - self.places, RECORD)
        segment["number"] = EMPTY
        segment[place - self.places] = block
        self._write(segment)
        return True

    def _write(self, segment: NDArray[np.void]) -> None:
        self._writer.extend(segment)
        self.places += len(segment)


def read_header(path: Path) -> Header:
    """Read and check a model file's header against the size of the file.

    Raises:
        DataError: missing, no model file, of another version, or of another size than the header says.
    """
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as stream:
            data = stream.read(HEADER_BYTES)
    except OSError as problem:
        raise DataError(f"n-gram model `{path}` cannot be read: {problem.strerror}") from None
    if len(data) < HEADER_BYTES or not data.startswith(MAGIC):
        raise DataError(
            f"`{path}` is no n-gram model: it does not start with {MAGIC.decode()}",
            hint="make one with `criadero ngram train`; ARPA files are read by name, .arpa or .arpa.gz",
        )
    header = _parse(data, path)
    if header.offsets()[1] != size_bytes:
        raise DataError(
            f"n-gram model `{path}` has {size_bytes:,} bytes, its header asks for {header.offsets()[1]:,}",
            hint="the file is cut or damaged: restore it or train again",
        )
    return header


def _parse(data: bytes, path: Path) -> Header:
    try:
        values = json.loads(data[len(MAGIC) :].rstrip(b"\0"))
        version = values.pop("version")
        values["counts"] = tuple(values["counts"])
        header = Header(**values) if version == VERSION else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as problem:
        raise DataError(f"the header of n-gram model `{path}` is damaged: {problem}") from None
    if header is None:
        raise DataError(f"n-gram model `{path}` has format version {version}, this program reads {VERSION}")
    numbers = [header.order, header.seed, header.capacity, header.places, header.longest, header.word_bytes]
    if (
        not all(type(n) is int and n >= 0 for n in [*numbers, *header.counts])
        or not 1 <= header.order <= MAX_ORDER
        or header.order != len(header.counts)
        or header.counts[0] < 3
        or not 1 <= header.capacity <= header.places < 1 << 33
    ):
        raise DataError(f"the header of n-gram model `{path}` is damaged: its numbers cannot be")
    return header
