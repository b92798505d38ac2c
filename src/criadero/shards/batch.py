"""What a training step receives: `Batch`, put together from rows of token ids by `collate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Int64s = npt.NDArray[np.int64]

IGNORED = -100
NO_SAMPLE = -1


@dataclass(frozen=True)
class Row:
    """One sequence before it becomes a tensor row; a short or empty one is padded.

    Attributes:
        sample: global sample index, `NO_SAMPLE` for padding.
        inputs, targets: token ids (t,), t <= T.
        starts: places in `inputs` (above 0) at which another document starts, ascending.
    """

    sample: int = NO_SAMPLE
    inputs: npt.NDArray[np.integer] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    targets: npt.NDArray[np.integer] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    starts: Int64s = field(default_factory=lambda: np.empty(0, dtype=np.int64))


@dataclass(frozen=True)
class Batch:
    """Sequences of packed documents, CPU tensors of int64.

    Attributes:
        tokens_BT: inputs.
        targets_BT: the token after each input; `IGNORED` where there is none (padding).
        sample_indices: the global sample behind each row, `NO_SAMPLE` for a padding row.
        num_targets: targets that are not ignored.
        document_BT: number of the document within its row, from 0; None unless documents are masked.
        positions_BT: position within the document (or its part in this row); None likewise.
    """

    tokens_BT: Tensor
    targets_BT: Tensor
    sample_indices: tuple[int, ...]
    num_targets: int
    document_BT: Tensor | None = None
    positions_BT: Tensor | None = None


def collate(rows: Sequence[Row], seq_len: int, *, mask_documents: bool) -> Batch:
    """Return rows as one batch of shape (len(rows), seq_len)."""
    tokens_BT = np.zeros((len(rows), seq_len), dtype=np.int64)
    targets_BT = np.full((len(rows), seq_len), IGNORED, dtype=np.int64)
    for number, row in enumerate(rows):
        tokens_BT[number, : len(row.inputs)] = row.inputs
        targets_BT[number, : len(row.targets)] = row.targets
    document_BT = positions_BT = None
    if mask_documents:
        document_BT, positions_BT = _documents(rows, seq_len)
    return Batch(
        torch.from_numpy(tokens_BT),
        torch.from_numpy(targets_BT),
        tuple(row.sample for row in rows),
        sum(len(row.targets) for row in rows),
        document_BT,
        positions_BT,
    )


def document_mask_BTT(document_BT: Tensor) -> Tensor:
    """Return which positions may attend to which: earlier ones and itself, in the same document.

    Args:
        document_BT: document numbers, integer (B, T).

    Returns:
        bool (B, T, T) on the same device; [b, q, k] is True where query q may see key k.
    """
    same_BTT = document_BT[:, :, None] == document_BT[:, None, :]
    return same_BTT.tril()


def _documents(rows: Sequence[Row], seq_len: int) -> tuple[Tensor, Tensor]:
    places_T = np.arange(seq_len, dtype=np.int64)
    document_BT = np.stack([np.searchsorted(row.starts, places_T, side="right") for row in rows])
    starts = [np.concatenate([[0], row.starts]) for row in rows]
    positions_BT = np.stack(
        [places_T - begin[numbers] for begin, numbers in zip(starts, document_BT, strict=True)]
    )
    return torch.from_numpy(document_BT), torch.from_numpy(positions_BT)
