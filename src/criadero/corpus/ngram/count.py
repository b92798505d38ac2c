"""From the corpus as ids to all n-grams with their adjusted counts, in suffix order, on disk.

Entry point: `count_ngrams`. Blocks of the corpus become sorted runs of full-length n-grams; the runs are
merged range by range, and the shorter n-grams, which in suffix order are groups of consecutive rows, are read
off (Heafield et al. 2013, sections 3.1 and 3.2). The result is a trie: an n-gram names the n-gram one word
shorter (its suffix) by row, and its own first word.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from criadero.corpus.ngram.external import Column, blocks, quantiles
from criadero.corpus.ngram.vocabulary import BOS, EOS

U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
Columns = list[U32]
"""An n-gram each row, its last word in column 0, the word before in column 1 and so on."""

_MIN_BLOCK = 1 << 12
_BYTES_PER_ROW = 72
"""What an n-gram takes while it is sorted, besides 8 bytes for each of its words."""


@dataclass(frozen=True)
class Level:
    """All n-grams of one order from 2 on, in suffix order: by last word, then the word before, and so on.

    Attributes:
        parent: row of the n-gram without its first word in the level below; for order 2 the last word's id.
        word: the first word.
        count: adjusted count: of distinct words seen before it; in the highest order, and for n-grams that
            begin with `<s>`, of occurrences.
    """

    parent: Column
    word: Column
    count: Column

    @property
    def rows(self) -> int:
        """Number of n-grams."""
        return self.word.rows


@dataclass(frozen=True)
class Counts:
    """What counting found.

    Attributes:
        unigrams: adjusted count by word id; 0 for `<unk>`, and for `<s>`.
        levels: orders 2 and up.
        ending: per order from 2 on, how many n-grams end with `</s>`; they come first.
        statistics: [order - 1, j] is how many n-grams have adjusted count j, for j from 1 to 4.
    """

    unigrams: U32
    levels: list[Level]
    ending: list[int]
    statistics: NDArray[np.int64]

    def sizes(self) -> list[int]:
        """Number of n-grams per order."""
        return [len(self.unigrams), *(level.rows for level in self.levels)]


def count_ngrams(corpus: Column, num_words: int, order: int, *, folder: Path, memory_bytes: int) -> Counts:
    """Count all n-grams up to `order` of a corpus that `spool` wrote, within `memory_bytes`."""
    runs = list(_sorted_runs(corpus, num_words, order, folder=folder, memory_bytes=memory_bytes))
    reader = _TrieBuilder(num_words, order, folder)
    rows_at_once = max(_MIN_BLOCK, memory_bytes // (8 * order + _BYTES_PER_ROW))
    for columns, counts in _merged(runs, num_words, rows_at_once):
        reader.add(columns, counts)
    for run in runs:
        for column in run:
            column.delete()
    return reader.finish()


def _sorted_runs(
    corpus: Column, num_words: int, order: int, *, folder: Path, memory_bytes: int
) -> Iterator[list[Column]]:
    """Yield runs: `order` word columns and a count column, rows distinct and in suffix order."""
    block_tokens = max(_MIN_BLOCK, memory_bytes // (8 * order + _BYTES_PER_ROW))
    for number, (start, stop) in enumerate(blocks(corpus.rows, block_tokens)):
        columns = _full_ngrams(corpus, start, stop, order)
        columns, counts = distinct(columns, np.ones(stop - start, np.uint32), num_words)
        run = [Column(folder / f"run-{number}-{j}", np.uint32) for j in range(order + 1)]
        for file, values in zip(run, [*columns, counts], strict=True):
            file.append(values)
        yield run


def _full_ngrams(corpus: Column, start: int, stop: int, order: int) -> Columns:
    """Return the n-gram that ends at each token of a block, filled up with `<s>` before the sentence."""
    before = min(start, order - 1)
    ids = corpus.read(start - before, stop)
    opens = np.ones(len(ids), bool)
    opens[1:] = ids[:-1] == EOS
    columns = [ids]
    for _ in range(order - 1):
        shifted = np.empty_like(ids)
        shifted[0] = BOS
        shifted[1:] = columns[-1][:-1]
        shifted[opens] = BOS
        columns.append(shifted)
    return [column[before:] for column in columns]


def distinct(columns: Columns, counts: U32, num_words: int) -> tuple[Columns, U32]:
    """Return the distinct rows in suffix order with their counts added up."""
    if not len(counts):
        return columns, counts
    keys = suffix_keys(columns, num_words)
    order = np.argsort(keys)
    keys = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    first = order[starts]
    return [column[first] for column in columns], np.add.reduceat(counts[order], starts, dtype=np.uint32)


def suffix_keys(columns: Columns, num_words: int) -> U64:
    """Return a number for each row, such that numbers compare as rows do in suffix order.

    As many words as fit are packed into 64 bits; when they are full, the packed value is replaced by its
    rank.
    """
    bits = max(1, (num_words - 1).bit_length())
    keys, used = columns[0].astype(np.uint64), bits
    for column in columns[1:]:
        if used + bits > 64:
            keys, used = _ranks(keys)
        keys = (keys << np.uint64(bits)) | column
        used += bits
    return keys


def _ranks(keys: U64) -> tuple[U64, int]:
    """Return the rank of each key among the distinct keys, and how many bits ranks take."""
    order = np.argsort(keys)
    ordered = keys[order]
    new = np.empty(len(keys), bool)
    new[:1] = False
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    rank = np.cumsum(new, dtype=np.uint64)
    ranks = np.empty_like(keys)
    ranks[order] = rank
    return ranks, max(1, int(rank[-1]).bit_length())


def _merged(runs: list[list[Column]], num_words: int, rows_at_once: int) -> Iterator[tuple[Columns, U32]]:
    """Yield the distinct rows of all runs in suffix order, cut where the last two words change."""
    for bounds in _ranges(runs, rows_at_once):
        parts = [
            [column.read(start, stop) for column in run]
            for run, (start, stop) in zip(runs, bounds, strict=True)
        ]
        *columns, counts = [np.concatenate(list(column)) for column in zip(*parts, strict=True)]
        if len(runs) > 1:
            columns, counts = distinct(columns, counts, num_words)
        yield columns, counts


def _ranges(runs: list[list[Column]], rows_at_once: int) -> Iterator[list[tuple[int, int]]]:
    """Yield for consecutive ranges of the last two words where they lie in each run."""
    total = sum(run[0].rows for run in runs)
    pieces = -(-total // rows_at_once)
    sample = [
        _pairs(run, np.linspace(0, run[0].rows - 1, min(run[0].rows, 16 * pieces)).astype(np.int64))
        for run in runs
        if run[0].rows
    ]
    cuts = quantiles(np.concatenate(sample), pieces)
    places = [
        np.concatenate([[0], [_place(run, cut) for cut in cuts], [run[0].rows]]).astype(np.int64)
        for run in runs
    ]
    for piece in range(len(cuts) + 1):
        yield [(int(place[piece]), int(place[piece + 1])) for place in places]


def _pairs(run: list[Column], places: NDArray[np.int64]) -> U64:
    """Return the last two words of rows as one number."""
    last = run[0].sample(places).astype(np.uint64) << np.uint64(32)
    return last | run[1].sample(places) if len(run) > 2 else last


def _place(run: list[Column], pair: np.uint64) -> int:
    """Return the first row of a run whose last two words are not below `pair`, by bisection."""
    low, high = 0, run[0].rows
    while low < high:
        middle = (low + high) // 2
        if _pairs(run, np.array([middle]))[0] < pair:
            low = middle + 1
        else:
            high = middle
    return low


class _TrieBuilder:
    """Reads the levels off full-length n-grams that arrive in suffix order."""

    def __init__(self, num_words: int, order: int, folder: Path) -> None:
        self._order = order
        self._unigrams = np.zeros(num_words, np.int64)
        self._occurrences = np.zeros(num_words, np.int64)
        self._levels = [
            Level(*(Column(folder / f"{name}-{k}", np.uint32) for name in ("parent", "word", "count")))
            for k in range(2, order + 1)
        ]
        self._ending = [0] * (order - 1)
        self._statistics = np.zeros((order, 6), np.int64)
        self._last: list[tuple[int, int]] = []

    def add(self, columns: Columns, counts: U32) -> None:
        """Take the next rows; the last two words change between calls."""
        if not len(counts):
            return
        words = len(self._unigrams)
        self._occurrences += np.bincount(columns[0], weights=counts, minlength=words).astype(np.int64)
        changed = np.empty(len(counts), bool)
        changed[0] = True
        changed[1:] = columns[0][1:] != columns[0][:-1]
        parents, news, starts = columns[0], [], []
        for k in range(2, self._order + 1):
            changed[1:] |= columns[k - 1][1:] != columns[k - 1][:-1]
            # `<s> <s> a` is no n-gram: only the first word may be `<s>`.
            new = changed & (columns[k - 2] != BOS)
            news.append(new)
            starts.append(np.flatnonzero(new))
            self._levels[k - 2].parent.append(parents[starts[-1]])
            self._levels[k - 2].word.append(columns[k - 1][starts[-1]])
            self._ending[k - 2] += int(np.count_nonzero(columns[0][starts[-1]] == EOS))
            base = self._levels[k - 2].word.rows - len(starts[-1])
            parents = (base - 1 + np.cumsum(new)).astype(np.uint32)
        self._add_counts(columns, counts, news, starts)

    def _add_counts(
        self, columns: Columns, counts: U32, news: list[NDArray[np.bool_]], starts: list[NDArray[np.int64]]
    ) -> None:
        if self._order > 1:
            self._unigrams += np.bincount(columns[0][starts[0]], minlength=len(self._unigrams))
        self._last = []
        for k in range(2, self._order + 1):
            start = starts[k - 2]
            adjusted = counts[start]
            if k < self._order and len(start):
                extensions = np.add.reduceat(news[k - 1], start, dtype=np.uint32)
                adjusted = np.where(columns[k - 1][start] == BOS, adjusted, extensions)
            self._levels[k - 2].count.append(adjusted)
            self._statistics[k - 1] += np.bincount(np.minimum(adjusted, 5), minlength=6)
            if columns[k - 2][-1] != BOS:  # otherwise the last row is no n-gram of this order
                self._last.append((int(adjusted[-1]), int(counts[start[-1] :].sum())))

    def finish(self) -> Counts:
        """Return all counts."""
        if self._order == 1:
            self._unigrams = self._occurrences
        self._statistics[0] = np.bincount(np.minimum(self._unigrams, 5), minlength=6)
        if self._order > 1:
            self._as_lmplz_counts_the_last()
        return Counts(
            self._unigrams.astype(np.uint32), self._levels, self._ending, self._statistics[:, :5].copy()
        )

    def _as_lmplz_counts_the_last(self) -> None:
        """Count the last n-gram of each lower order by its occurrences in the statistics, as lmplz does.

        One count in all makes no difference to a real model, and all of it to being equal to lmplz.
        """
        last_word = int(np.flatnonzero(self._occurrences)[-1])
        last = [(int(self._unigrams[last_word]), int(self._occurrences[last_word])), *self._last]
        for order_minus_1, (adjusted, occurrences) in enumerate(last[: self._order - 1]):
            self._statistics[order_minus_1, min(adjusted, 5)] -= 1
            self._statistics[order_minus_1, min(occurrences, 5)] += 1
