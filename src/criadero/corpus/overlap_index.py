"""Which runs of words a text shares with the items of evaluation benchmarks.

Entry point: `OverlapIndex.find`, used by `criadero.corpus.decontaminate`. The items' n-grams are sorted
64-bit hashes; a table of marks answers for most words of a text without a search, and every hit is compared
word by word, so that no text is accused by a collision of hashes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from criadero.corpus.shingles import Hashes, WordHashes, ngram_hashes, words
from criadero.errors import DataError

_SLOTS_PER_NGRAM = 8  # at most an eighth of the words of an innocent text are left to the search
_MAX_SHARING_ITEMS = 10


@dataclass(frozen=True, slots=True)
class Overlap:
    """A run of words that a text shares with an item.

    Attributes:
        item: `benchmark:id`.
        first_word: where it begins, among the words of the text.
        words: how many.
    """

    item: str
    first_word: int
    words: int


@dataclass(frozen=True, slots=True)
class _Probe:
    """A text of an item."""

    benchmark: int
    item: str
    text: str


@dataclass(frozen=True, slots=True)
class _Ngrams:
    """N-grams of one length: sorted hashes, of each where it stands, and marks at their upper bits."""

    n: int
    hashes: Hashes
    probe: npt.NDArray[np.int32]
    first_word: npt.NDArray[np.int32]
    marks: npt.NDArray[np.bool_]
    shift: np.uint64

    @classmethod
    def of(cls, n: int, found: Sequence[tuple[int, Hashes]]) -> _Ngrams:
        """Sort what was found: number of the probe, hashes of its n-grams in order."""
        hashes = np.concatenate([np.empty(0, np.uint64), *(part for _, part in found)])
        probe = np.repeat(np.array([i for i, _ in found], np.int32), [len(part) for _, part in found])
        first_word = np.concatenate(
            [np.empty(0, np.int32), *(np.arange(len(p), dtype=np.int32) for _, p in found)]
        )
        order = np.argsort(hashes, kind="stable")
        return cls._marked(n, hashes[order], probe[order], first_word[order])

    @classmethod
    def _marked(
        cls, n: int, hashes: Hashes, probe: npt.NDArray[np.int32], first_word: npt.NDArray[np.int32]
    ) -> _Ngrams:
        bits = max(8, (len(hashes) * _SLOTS_PER_NGRAM).bit_length())
        marks, shift = np.zeros(1 << bits, np.bool_), np.uint64(64 - bits)
        marks[hashes >> shift] = True
        return cls(n, hashes, probe, first_word, marks, shift)

    def without_templates(self, benchmark: npt.NDArray[np.int32]) -> _Ngrams:
        """Leave out what more than ten texts of one benchmark hold.

        Args:
            benchmark: number of the benchmark of each probe.
        """
        if not len(self.hashes):
            return self
        of_row = benchmark[self.probe]  # ascending among equal hashes, as the probes are
        new_hash, new_benchmark, new_probe = (
            np.diff(values, prepend=values[:1]) != 0 for values in (self.hashes, of_row, self.probe)
        )
        group = np.cumsum(new_hash | new_benchmark)
        texts = np.bincount(group, weights=new_hash | new_probe)
        texts[0] += 1
        keep = texts[group] <= _MAX_SHARING_ITEMS
        return self._marked(self.n, self.hashes[keep], self.probe[keep], self.first_word[keep])

    def find(self, word_hashes: Hashes) -> Iterator[tuple[int, range]]:
        """Yield first words of a text's n-grams that are known here, with the rows of equal hash."""
        hashes = ngram_hashes(word_hashes, self.n)
        places = np.flatnonzero(self.marks[hashes >> self.shift])
        wanted = hashes[places]
        start = np.searchsorted(self.hashes, wanted, side="left")
        known = np.flatnonzero(self.hashes[np.minimum(start, len(self.hashes) - 1)] == wanted)
        stop = np.searchsorted(self.hashes, wanted[known], side="right")
        for place, rows in zip(places[known].tolist(), zip(start[known], stop, strict=True), strict=True):
            yield place, range(*rows)


class OverlapIndex:
    """The n-grams of all items of some benchmarks.

    Attributes:
        too_short: by benchmark, how many items have no text of `min_words` words.
    """

    def __init__(self, files: Mapping[str, Path], *, ngram: int, min_words: int) -> None:
        """Read `files`, one JSONL file per benchmark as `criadero benchmarks fetch` writes them.

        Args:
            files: by name of the benchmark.
            ngram: words that must be shared.
            min_words: a text of an item shorter than `ngram` counts whole, from this many words on.

        Raises:
            DataError: a file is missing or not one of those.
        """
        self.too_short: Counter[str] = Counter()
        self._ngram = ngram
        self._names = list(files)
        self._probes: list[_Probe] = []
        long: list[tuple[int, Hashes]] = []
        short: list[tuple[int, Hashes]] = []  # found by their first words, then compared whole
        for number, hashes in self._read(files, WordHashes(), min_words):
            if len(hashes) < ngram:
                short.append((number, ngram_hashes(hashes[:min_words], min_words)))
            else:
                long.append((number, ngram_hashes(hashes, ngram)))
        benchmark = np.array([probe.benchmark for probe in self._probes], np.int32)
        self._ngrams = [_Ngrams.of(min_words, short), _Ngrams.of(ngram, long).without_templates(benchmark)]

    def find(self, text: str, word_hashes: Hashes) -> list[Overlap]:
        """Return all overlaps of a text, first those with short items.

        Args:
            text: the text.
            word_hashes: what `WordHashes` says of it.
        """
        found: list[Overlap] = []
        text_words: list[str] = []
        words_of = cache(lambda probe: words(probe.text))  # a long item is met at each of its words
        for ngrams in self._ngrams:
            for place, rows in ngrams.find(word_hashes):
                text_words = text_words or words(text)
                for row in rows:
                    probe, first = self._probes[ngrams.probe[row]], ngrams.first_word[row]
                    run = words_of(probe)[first : first + self._ngram]
                    if text_words[place : place + len(run)] == run:
                        found.append(Overlap(f"{self._names[probe.benchmark]}:{probe.item}", place, len(run)))
        return found

    def _read(
        self, files: Mapping[str, Path], hash_words: WordHashes, min_words: int
    ) -> Iterator[tuple[int, Hashes]]:
        """Keep the probes of all files, count what is too short; yield number and word hashes of each."""
        for benchmark, (name, path) in enumerate(files.items()):
            for item, texts in _items(path):
                hashed = [(text, hash_words(text)) for text in texts]
                usable = [(text, hashes) for text, hashes in hashed if len(hashes) >= min_words]
                self.too_short[name] += not usable
                for text, hashes in usable:
                    self._probes.append(_Probe(benchmark, item, text))
                    yield len(self._probes) - 1, hashes


def _items(path: Path) -> Iterator[tuple[str, list[str]]]:
    try:
        with path.open("rb") as lines:
            for line in lines:
                row = json.loads(line)
                yield row["id"], row["texts"]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise DataError(
            f"`{path}` is no benchmark file: {problem}", hint="criadero benchmarks fetch --out FOLDER"
        ) from problem
