"""From adjusted counts to probabilities and backoffs: interpolated modified Kneser-Ney.

Entry points: `discounts` and `estimate`. Chen and Goodman (1998), equation 26 and section 2.7, as lmplz does
it (Heafield et al. 2013, sections 3.3 and 3.4), in float32 and in the same order of operations, so that
results agree to the last bit before the logarithm is taken.

Order by order: the n-grams of one order are brought into the order of their contexts, summed per context,
and brought back. The contexts of order k, sorted, are the rows of order k - 1 that do not end with `</s>`,
so that row numbers are found by counting.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from criadero.corpus.ngram.count import Counts, Level
from criadero.corpus.ngram.external import MAX_BUCKETS, Buckets, Column, blocks, quantiles
from criadero.corpus.ngram.vocabulary import BOS, UNK
from criadero.errors import DataError
from criadero.notices import say_once

F32 = NDArray[np.float32]

FALLBACK = (0.0, 0.5, 1.0, 1.5)
"""Discounts by adjusted count where counts of counts give none, those of lmplz --discount_fallback."""

_SAMPLE_ROWS = 8192
_MIN_ROWS = 1 << 12
_BYTES_PER_ROW = 96
"""What one row takes at most while it is sorted by context."""

_BY_CONTEXT = np.dtype([("key", "<u8"), ("row", "<u4"), ("count", "<u4")])
_BY_ROW = np.dtype([("row", "<u4"), ("context", "<u4"), ("own", "<f4"), ("gamma", "<f4")])


@dataclass(frozen=True)
class Probabilities:
    """Linear probability and backoff of every n-gram, per order, aligned with `Counts`.

    Attributes:
        probability: per order.
        backoff: per order but the highest; 1 where the n-gram is no context.
        discounts: [order - 1, j] is subtracted from adjusted count j; j = 3 stands for 3 and more.
    """

    probability: list[Column]
    backoff: list[Column]
    discounts: F32


def discounts(statistics: NDArray[np.int64], *, fallback: bool) -> F32:
    """Return the discounts per order from the numbers of n-grams with adjusted count 1 to 4.

    Raises:
        DataError: an order has none of count 1, 2 or 3, or a discount out of range, and no `fallback`.
    """
    rows = []
    for order, n in enumerate(statistics, start=1):
        found, problem = _closed_form(n)
        if found is None and not fallback:
            raise DataError(
                f"no Kneser-Ney discounts for {order}-grams: {problem}",
                hint="give more text, remove duplicates, or allow discount_fallback",
            )
        if found is None:
            say_once(
                f"n-gram model: discounts 0.5, 1 and 1.5 for {order}-grams, because {problem}; "
                "usual for little or artificial text"
            )
        rows.append(np.array(FALLBACK if found is None else found, np.float32))
    return np.stack(rows)


def _closed_form(n: NDArray[np.int64]) -> tuple[list[np.float32] | None, str]:
    """Return Chen and Goodman's equation 26, or why it cannot be used."""
    for j in (1, 2, 3):
        if n[j] == 0:
            return None, f"no n-gram has adjusted count {j}"
    y = np.float32(n[1]) / np.float32(n[1] + 2.0 * n[2])
    found = [np.float32(0)]
    for j in (1, 2, 3):
        amount = np.float32(j) - np.float32(j + 1) * y * np.float32(n[j + 1]) / np.float32(n[j])
        if not 0 <= amount <= j:
            return None, f"the discount for adjusted count {j} would be {amount:.3g}"
        found.append(amount)
    return found, ""


def estimate(counts: Counts, *, fallback: bool, folder: Path, memory_bytes: int) -> Probabilities:
    """Estimate all probabilities and backoffs within `memory_bytes`, files in `folder`.

    Raises:
        DataError: see `discounts`.
    """
    discount = discounts(counts.statistics, fallback=fallback)
    unigram = Column(folder / "probability-1", np.float32)
    unigram.append(_unigrams(counts.unigrams, discount[0]))
    probability, backoff = [unigram], []
    contexts = Column(folder / "context-1", np.uint32)
    contexts.append(np.zeros(len(counts.unigrams), np.uint32))
    for k, level in enumerate(counts.levels, start=2):
        step = _Order(k, level, counts, discount[k - 1], contexts, folder=folder, memory_bytes=memory_bytes)
        by_row = step.by_context()
        backoff.append(step.backoff)
        contexts.delete()
        contexts = step.contexts
        probability.append(step.interpolate(by_row, probability[-1]))
    contexts.delete()
    return Probabilities(probability, backoff, discount)


def _unigrams(count: NDArray[np.uint32], discount: F32) -> F32:
    """Interpolate unigrams with the uniform distribution over all words but `<s>`; `<unk>` has only that."""
    denominator = np.float32(int(count.sum(dtype=np.uint64)))
    numbers = np.bincount(np.minimum(count, 3), minlength=4)
    gamma = _gamma(discount, numbers[1:2], numbers[2:3], numbers[3:4], denominator)
    uniform = np.float32(1.0 / np.float32(len(count) - 1))
    probability = _discounted(count, discount) / denominator + gamma * uniform
    probability[UNK] = gamma[0] * uniform
    probability[BOS] = 1
    return probability


def _discounted(count: NDArray[np.uint32], discount: F32) -> F32:
    discounted: F32 = count.astype(np.float32) - discount[np.minimum(count, 3)]
    return discounted


def _gamma(
    discount: F32,
    ones: NDArray[np.integer],
    twos: NDArray[np.integer],
    more: NDArray[np.integer],
    denominator: F32 | np.float32,
) -> F32:
    """Return the mass that discounting frees in a context, which is its backoff."""
    gamma = discount[1] * ones.astype(np.float32)
    gamma = gamma + discount[2] * twos.astype(np.float32)
    gamma = gamma + discount[3] * more.astype(np.float32)
    freed: F32 = gamma / denominator
    return freed


class _Order:
    """The n-grams of one order while they are summed per context and brought back."""

    def __init__(
        self,
        k: int,
        level: Level,
        counts: Counts,
        discount: F32,
        parent_contexts: Column,
        *,
        folder: Path,
        memory_bytes: int,
    ) -> None:
        self._k = k
        self._level = level
        self._discount = discount
        self._parent_contexts = parent_contexts
        self._folder = folder
        self._rows_at_once = max(_MIN_ROWS, memory_bytes // _BYTES_PER_ROW)
        self._pieces = min(MAX_BUCKETS, -(-level.rows // self._rows_at_once))
        self._block_rows = max(_MIN_ROWS, self._rows_at_once // 2)
        self.backoff = Column(folder / f"backoff-{k - 1}", np.float32)
        self.contexts = Column(folder / f"context-{k}", np.uint32)
        # The shorter n-grams that are no context, because nothing follows `</s>`, come first.
        self._no_context = counts.ending[k - 3] if k > 2 else 0
        self._num_contexts = counts.sizes()[k - 2]

    def by_context(self) -> Buckets:
        """Sum per context; write the backoffs of the order below, return records sorted by row."""
        every = max(1, -(-self._level.rows // max(1, self._pieces)))
        by_row = Buckets(
            self._folder,
            np.arange(every, self._level.rows, every, dtype=np.uint64) if self._pieces > 1 else _NO_SPLITTERS,
            _BY_ROW,
        )
        backoff = np.ones(self._num_contexts if self._k == 2 else self._no_context, np.float32)
        if self._k > 2:
            self.backoff.append(backoff)
        context = self._no_context
        for bucket in self._sorted_by_context().drain():
            if not len(bucket):
                continue
            records = bucket[np.argsort(bucket["key"])]
            key = records["key"]
            starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
            denominator, gamma = self._sums(records["count"], starts)
            if self._k == 2:  # the context is a word, and its key is its id
                backoff[key[starts].astype(np.int64)] = gamma
                contexts = key
            else:
                self.backoff.append(gamma)
                contexts = np.repeat(np.arange(context, context + len(starts)), _lengths(starts, len(key)))
                context += len(starts)
            self._back_to_rows(by_row, records, contexts, _lengths(starts, len(key)), denominator, gamma)
        if self._k == 2:
            self.backoff.append(backoff)
        return by_row

    def _sorted_by_context(self) -> Buckets:
        level = self._level
        by_context = Buckets(self._folder, self._splitters(), _BY_CONTEXT)
        for start, stop in blocks(level.rows, self._block_rows):
            records = np.empty(stop - start, _BY_CONTEXT)
            records["key"] = self._keys(level.parent.read(start, stop), level.word.read(start, stop))
            records["row"] = np.arange(start, stop)
            records["count"] = level.count.read(start, stop)
            by_context.add(records["key"], records)
        return by_context

    def _keys(self, parent: NDArray[np.uint32], word: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """Return for each n-gram a number that is equal for equal contexts and sorts them in suffix order.

        The context of `w1 .. wk` is `w1` before the context of its suffix `w2 .. wk`.
        """
        return (self._parent_contexts.gather(parent).astype(np.uint64) << np.uint64(32)) | word

    def _splitters(self) -> NDArray[np.uint64]:
        if self._pieces < 2:
            return _NO_SPLITTERS
        places = np.linspace(0, self._level.rows - 1, min(_SAMPLE_ROWS, self._level.rows)).astype(np.int64)
        sample = self._keys(self._level.parent.sample(places), self._level.word.sample(places))
        return quantiles(sample, self._pieces)

    def _sums(self, count: NDArray[np.uint32], starts: NDArray[np.int64]) -> tuple[F32, F32]:
        denominator = np.add.reduceat(count, starts, dtype=np.uint64).astype(np.float32)
        ones, twos, more = (
            np.add.reduceat(chosen, starts, dtype=np.uint32)
            for chosen in (count == 1, count == 2, count >= 3)
        )
        return denominator, _gamma(self._discount, ones, twos, more, denominator)

    def _back_to_rows(
        self,
        by_row: Buckets,
        records: NDArray[np.void],
        contexts: NDArray[np.integer],
        lengths: NDArray[np.int64],
        denominator: F32,
        gamma: F32,
    ) -> None:
        back = np.empty(len(records), _BY_ROW)
        back["row"] = records["row"]
        back["context"] = contexts
        back["own"] = _discounted(records["count"], self._discount) / np.repeat(denominator, lengths)
        back["gamma"] = np.repeat(gamma, lengths)
        by_row.add(back["row"].astype(np.uint64), back)

    def interpolate(self, by_row: Buckets, lower: Column) -> Column:
        """Add the share of the order below and return the probabilities by row."""
        probability = Column(self._folder / f"probability-{self._k}", np.float32)
        start = 0
        for records in by_row.drain():
            place = records["row"] - np.uint32(start)
            context = np.empty(len(records), np.uint32)
            own = np.empty(len(records), np.float32)
            gamma = np.empty(len(records), np.float32)
            context[place], own[place], gamma[place] = records["context"], records["own"], records["gamma"]
            parent = self._level.parent.read(start, start + len(records))
            self.contexts.append(context)
            probability.append(own + gamma * lower.gather(parent))
            start += len(records)
        return probability


_NO_SPLITTERS: NDArray[np.uint64] = np.empty(0, np.uint64)


def _lengths(starts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    return np.diff(starts, append=total)
