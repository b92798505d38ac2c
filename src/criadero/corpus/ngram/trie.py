"""What estimation left on disk, read n-gram by n-gram: for the model file and for ARPA."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from criadero.corpus.ngram import hashing
from criadero.corpus.ngram.count import Counts
from criadero.corpus.ngram.external import Column, blocks
from criadero.corpus.ngram.smooth import Probabilities
from criadero.corpus.ngram.table import RECORD

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Trie:
    """All n-grams of an estimated model.

    Attributes:
        folder: for temporary files.
        block_rows: n-grams handled at once.
    """

    counts: Counts
    probabilities: Probabilities
    folder: Path
    block_rows: int

    @property
    def order(self) -> int:
        """Words of the longest n-gram."""
        return 1 + len(self.counts.levels)

    def unigrams(self) -> F32:
        """Return [words, 2]: log10 probability and log10 backoff by word id."""
        rows = len(self.counts.unigrams)
        probability, backoff = self.values(1, 0, rows)
        return np.stack([probability, np.zeros(rows, np.float32) if backoff is None else backoff], axis=1)

    def values(self, order: int, start: int, stop: int) -> tuple[F32, F32 | None]:
        """Return log10 probability and log10 backoff of rows; the highest order has no backoff."""
        probability = _log10(self.probabilities.probability[order - 1].read(start, stop))
        # Rounding may leave a probability a little above 1.
        probability = np.minimum(probability, np.float32(0))
        if order == self.order:
            return probability, None
        return probability, _log10(self.probabilities.backoff[order - 1].read(start, stop))

    def words(self, order: int, start: int, stop: int) -> list[NDArray[np.uint32]]:
        """Return the word ids of rows, one array per place in the n-gram, its first word first."""
        columns = []
        rows = np.arange(start, stop, dtype=np.uint32)
        for k in range(order, 1, -1):
            level = self.counts.levels[k - 2]
            columns.append(level.word.gather(rows))
            rows = level.parent.gather(rows)
        return [*columns, rows]

    def records(self, seed: int) -> Iterator[NDArray[np.void]]:
        """Yield all n-grams of two and more words for the model file, see `table.Records`."""
        shorter = Column(self.folder / "numbers-1", np.uint64)
        ids = np.arange(len(self.counts.unigrams), dtype=np.uint32)
        shorter.append(hashing.first(ids, seed))
        for k, level in enumerate(self.counts.levels, start=2):
            numbers = Column(self.folder / f"numbers-{k}", np.uint64)
            for start, stop in blocks(level.rows, self.block_rows):
                block = np.zeros(stop - start, RECORD)
                parent, word = level.parent.read(start, stop), level.word.read(start, stop)
                block["number"] = hashing.extend(shorter.gather(parent), word)
                probability, backoff = self.values(k, start, stop)
                block["probability"] = probability
                if backoff is not None:
                    block["backoff"] = backoff
                    numbers.append(block["number"])
                yield block
            shorter.delete()
            shorter = numbers
        shorter.delete()


def _log10(values: F32) -> F32:
    with np.errstate(divide="ignore"):  # discounts of 0 leave nothing to back off with: -inf, as in lmplz
        return np.log10(values.astype(np.float64)).astype(np.float32)
