"""Held-out text for evaluation: `HeldOut` covers every token of the split exactly once, as a target.

Bits per byte = (sum of the loss over all targets, nats) / ln 2 / `text_bytes`: the opening and closing tokens
are paid for too, the bytes are those of the documents' text alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from criadero.shards.batch import Batch, Row, collate
from criadero.shards.permutation import permute
from criadero.shards.read import ShardSet

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Piece:
    """Tokens [start, stop) of one shard set, in a row."""

    shards: ShardSet
    start: int
    stop: int


class HeldOut:
    """Non-overlapping windows of `seq_len` targets over held-out splits, or over some of their documents.

    A window's first input is the token before its first target; before the very first, the closing token.

    Attributes:
        num_tokens: targets in all windows.
        text_bytes: UTF-8 length of the documents covered.
        num_documents, num_windows: how many.

    Args:
        shard_sets: the held-out splits, one after the other.
        max_tokens: take whole documents in a fixed shuffled order while they fit (at least one, the
            shortest); None takes all.
        mask_documents: give document numbers and positions along, as in training.
    """

    def __init__(
        self,
        shard_sets: Sequence[ShardSet],
        *,
        seq_len: int,
        max_tokens: int | None = None,
        mask_documents: bool = False,
    ) -> None:
        self.shard_sets = tuple(shard_sets)
        self._seq_len = seq_len
        self._mask_documents = mask_documents
        identity = self.shard_sets[0].manifest.tokenizer
        self._before = next((i for i in (identity.eos_id, identity.bos_id) if i is not None), 0)
        if max_tokens is None or sum(shards.num_tokens for shards in shard_sets) <= max_tokens:
            self._pieces = [_Piece(shards, 0, shards.num_tokens) for shards in shard_sets]
            self.num_documents = sum(shards.num_documents for shards in shard_sets)
            self.text_bytes = sum(shards.num_bytes for shards in shard_sets)
        else:
            self._draw(max_tokens)
        # Where each piece starts in the stream that the pieces make, end included.
        self._places = np.cumsum([0, *(piece.stop - piece.start for piece in self._pieces)])
        self.num_tokens = int(self._places[-1])
        self.num_windows = -(-self.num_tokens // seq_len)

    def batches(self, micro_count: int, *, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Yield this rank's windows, `micro_count` rows a batch.

        All ranks yield the same number of batches; rows beyond the end are padding without targets. The
        `sample_indices` are window numbers.
        """
        per_round = micro_count * world_size
        for first in range(rank * micro_count, rank * micro_count + self.num_windows, per_round):
            windows = range(first, first + micro_count)
            rows = [self._row(window) if window < self.num_windows else Row() for window in windows]
            yield collate(rows, self._seq_len, mask_documents=self._mask_documents)

    def verify(
        self, rank: int = 0, world_size: int = 1, *, stop_requested: Callable[[], bool] = lambda: False
    ) -> None:
        """Hash this rank's share of the files, until a stop is asked for.

        Raises:
            DataError: naming a file that has changed.
        """
        for shards in self.shard_sets:
            shards.verify(rank, world_size, stop_requested=stop_requested)

    def _draw(self, max_tokens: int) -> None:
        """Choose documents of all sets together, and keep them in stored order."""
        lengths = np.concatenate([shards.document_tokens() for shards in self.shard_sets])
        count = lengths.size
        shuffled = permute(np.arange(count), np.full(count, count), np.zeros(count, dtype=np.uint64))
        drawn = np.sort(shuffled[np.cumsum(lengths[shuffled]) <= max_tokens])
        if not drawn.size:
            drawn = np.array([int(np.argmin(lengths))])
        firsts = np.cumsum([0, *(shards.num_documents for shards in self.shard_sets)])
        owners = np.searchsorted(firsts, drawn, side="right") - 1
        self._pieces, self.num_documents, self.text_bytes = [], int(drawn.size), 0
        for owner, index in zip(owners.tolist(), (drawn - firsts[owners]).tolist(), strict=True):
            document = self.shard_sets[owner].document(index)
            self._pieces.append(_Piece(self.shard_sets[owner], document.start, document.stop))
            self.text_bytes += document.num_bytes

    def _row(self, window: int) -> Row:
        start = window * self._seq_len
        stop = min(start + self._seq_len, self.num_tokens)
        targets = self._read(start, stop)
        before = self._read(start - 1, start) if start else np.array([self._before])
        inputs = np.concatenate([before, targets[:-1]])
        starts = self._document_starts(start, stop - 1) - start + 1 if self._mask_documents else Row().starts
        return Row(window, inputs, targets, starts)

    def _covering(self, start: int, stop: int) -> Iterator[tuple[_Piece, int]]:
        """Yield the parts of pieces that stream [start, stop) covers, and where in the stream each is."""
        number = int(np.searchsorted(self._places, start, side="right")) - 1
        while start < stop:
            end = min(stop, int(self._places[number + 1]))
            piece = self._pieces[number]
            shift = piece.start - int(self._places[number])
            yield _Piece(piece.shards, start + shift, end + shift), start
            start, number = end, number + 1

    def _read(self, start: int, stop: int) -> Int64s:
        parts = [part.shards.tokens(part.start, part.stop) for part, _ in self._covering(start, stop)]
        return np.concatenate(parts).astype(np.int64)

    def _document_starts(self, start: int, stop: int) -> Int64s:
        """Return where in the stream's [start, stop) documents start."""
        parts = [
            part.shards.document_starts(part.start, part.stop) - part.start + place
            for part, place in self._covering(start, stop)
        ]
        return np.concatenate(parts) if parts else Row().starts
