"""Held-out loss and bits per byte, which compares models of different vocabularies, by source and in all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from criadero.parallel.collectives import any_rank, sum_over_batch
from criadero.parallel.mesh import Mesh
from criadero.parallel.watchdog import set_phase
from criadero.shards.config import DataConfig
from criadero.shards.held_out import HeldOut
from criadero.shards.read import ShardSet
from criadero.train.step import summed_loss

_BATCHES_BETWEEN_POLLS = 8


@dataclass(frozen=True)
class HeldOutScore:
    """Loss of some held-out text: summed, nats; over so many target tokens; of so many UTF-8 bytes."""

    loss_sum: float
    tokens: int
    text_bytes: int

    @property
    def loss(self) -> float:
        """Mean loss, nats per token."""
        return self.loss_sum / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """Bits to say one byte of the text."""
        return self.loss_sum / math.log(2) / self.text_bytes

    def __add__(self, other: HeldOutScore) -> HeldOutScore:
        return HeldOutScore(
            self.loss_sum + other.loss_sum, self.tokens + other.tokens, self.text_bytes + other.text_bytes
        )


def open_heldout(data: DataConfig, *, max_tokens: int | None) -> dict[str, HeldOut]:
    """Open the held-out split of each source that has one; `max_tokens` in all, shared by size."""
    splits = {source.name: source.path / "heldout" for source in data.sources}
    shards = {name: ShardSet(path) for name, path in splits.items() if path.is_dir()}
    whole = sum(part.num_tokens for part in shards.values())
    share = 1.0 if max_tokens is None else min(1.0, max_tokens / max(1, whole))
    return {
        name: HeldOut(
            [part],
            seq_len=data.seq_len,
            max_tokens=None if share == 1 else max(1, int(share * part.num_tokens)),
            mask_documents=data.mask_documents,
        )
        for name, part in shards.items()
    }


def score_heldout(
    model: nn.Module,
    heldout: Mapping[str, HeldOut],
    *,
    mesh: Mesh,
    batch_sequences: int,
    chunk_tokens: int,
    stop_requested: Callable[[], bool] = lambda: False,
) -> dict[str, HeldOutScore] | None:
    """Score each source's windows on all ranks together; None if a rank was asked to stop meanwhile.

    Every rank runs the same number of batches, because each forward pass gathers weights from all ranks.
    """
    set_phase("held-out scoring")
    scores: dict[str, HeldOutScore] = {}
    with torch.no_grad(), _evaluating(model):
        for name, part in heldout.items():
            loss_sum = 0.0
            batches = part.batches(batch_sequences, rank=mesh.dp_rank, world_size=mesh.dp_size)
            for index, batch in enumerate(batches):
                if index % _BATCHES_BETWEEN_POLLS == 0 and any_rank(stop_requested(), mesh):
                    return None
                loss_sum += float(summed_loss(model, batch, mesh=mesh, chunk_tokens=chunk_tokens))
            scores[name] = HeldOutScore(sum_over_batch(loss_sum, mesh), part.num_tokens, part.text_bytes)
    return scores


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation, and after it back into training, holding its own shards only.

    Only a backward pass makes FSDP2 give the outermost weights back to their shards, and on one CPU rank
    those of the layers; whoever saved or loaded the model's parameters before the next one would find
    gathered copies that the optimizer does not know.
    """
    model.eval()
    try:
        yield
    finally:
        model.train()
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def total(scores: Mapping[str, HeldOutScore]) -> HeldOutScore:
    """Add up the scores of all sources."""
    return sum(scores.values(), start=HeldOutScore(0.0, 0, 0))


def as_metrics(scores: Mapping[str, HeldOutScore]) -> dict[str, float]:
    """Return what metrics.jsonl holds: the whole, and each source if there are several."""
    whole = total(scores)
    metrics = {"heldout_loss": whole.loss, "heldout_bits_per_byte": whole.bits_per_byte}
    if len(scores) > 1:
        metrics |= {f"heldout_bits_per_byte/{name}": score.bits_per_byte for name, score in scores.items()}
    return metrics
