"""What one rank does in an optimizer step. Entry point: `RankStep`, which every estimate starts from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Recompute = Literal["none", "paper", "full"]


@dataclass(frozen=True)
class RankStep:
    """The work of a rank between two updates of the weights.

    Attributes:
        seq_len: tokens of a sequence.
        micro_batch_sequences: sequences a rank works on at once.
        micro_batches: how many of these a rank does in a step.
        compute_bytes: of one value in the compute dtype, in which weights and activations travel.
        recompute: the setting `train.recompute`.
        loss_chunk_tokens: the setting `train.loss_chunk_tokens`.
    """

    seq_len: int
    micro_batch_sequences: int
    micro_batches: int
    compute_bytes: int
    recompute: Recompute
    loss_chunk_tokens: int

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch."""
        return self.micro_batch_sequences * self.seq_len
