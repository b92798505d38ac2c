"""How much the ranks of a run tell each other in one optimizer step, collective by collective.

Entry point: `communication`, by arithmetic from sizes alone. Weights are gathered and gradients summed by
FSDP2 (ZeRO stage 3, Rajbhandari et al. 2020); replicas add an all-reduce of what each rank holds. Ranks that
share matrix products exchange parts of the sequence as in Korthikanti et al. (2022), section 4.2.2: an
all-gather and a reduce-scatter around each pair of products. A test counts every collective of real steps and
compares.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from criadero.model.config import ModelConfig
from criadero.parallel.config import ParallelConfig
from criadero.planner.step import RankStep
from criadero.planner.weights import Weight, layer_weights, other_weights, values

Kind = Literal["all_gather", "reduce_scatter", "all_reduce"]
# Along which dimension of the mesh, or which of them together.
Dimension = Literal["dp_replicate", "dp_shard", "tp", "dp", "dp_shard_tp", "world"]

_FLOAT32_BYTES = 4
_INT64_BYTES = 8


@dataclass(frozen=True)
class Collective:
    """What one rank takes part in during a step, all alike collectives together.

    Attributes:
        what: what travels, in words.
        kind: which collective.
        dimension: of the mesh, along which it runs.
        ranks: how many take part in each.
        calls: how many in one step.
        tensor_bytes: size of the whole tensors, gathered or before they are scattered, of all calls.
    """

    what: str
    kind: Kind
    dimension: Dimension
    ranks: int
    calls: int
    tensor_bytes: int

    @property
    def sent_bytes(self) -> float:
        """What this rank sends if ranks form a ring, which is the least possible; it receives as much."""
        turns = 2 if self.kind == "all_reduce" else 1
        return turns * self.tensor_bytes * (self.ranks - 1) / self.ranks


def communication(model: ModelConfig, ranks: ParallelConfig, step: RankStep) -> tuple[Collective, ...]:
    """Return what a rank exchanges in one step; only groups of more than one rank say anything.

    Args:
        model: sizes of the decoder.
        ranks: the mesh, `dp_shard` settled (not -1).
        step: what the rank does; of recomputation only `full` repeats what is exchanged.
    """
    everything = [
        *_weights(model, ranks, step),
        *_sequence_parts(model, ranks, step),
        *_shared_vocabulary(ranks, step),
        *_shared_gains(model, ranks, step),
        *_scalars(model, ranks),
    ]
    return tuple(one for one in everything if one.ranks > 1)


def _weights(model: ModelConfig, ranks: ParallelConfig, step: RankStep) -> Iterable[Collective]:
    """FSDP2: a layer is gathered for its forward and again for its backward, the rest once a micro-batch.

    Gradients are summed once a step, in float32.
    """
    shards, layers = ranks.dp_shard, model.num_layers
    layer = _padded(layer_weights(model), ranks)
    rest = _padded(other_weights(model), ranks)

    def gather(what: str, times: int, size: int) -> Collective:
        calls = times * step.micro_batches
        return Collective(what, "all_gather", "dp_shard", shards, calls, calls * size * step.compute_bytes)

    yield gather("weights of layers, forward", layers, layer)
    yield gather("weights of layers, backward", layers, layer)
    yield gather("embedding, last norm, output", 1, rest)
    gradient_bytes = (layers * layer + rest) * _FLOAT32_BYTES
    yield Collective("gradients", "reduce_scatter", "dp_shard", shards, layers + 1, gradient_bytes)
    part_bytes = gradient_bytes // shards
    yield Collective(
        "gradients of replicas", "all_reduce", "dp_replicate", ranks.dp_replicate, layers + 1, part_bytes
    )


def _sequence_parts(model: ModelConfig, ranks: ParallelConfig, step: RankStep) -> Iterable[Collective]:
    """Tensor and sequence parallelism: residual streams of a micro-batch, gathered and summed."""
    whole_bytes = step.tokens * model.dim * step.compute_bytes

    def exchange(what: str, kind: Kind, times: int) -> Collective:
        calls = times * step.micro_batches
        return Collective(what, kind, "tp", ranks.tp, calls * ranks.tp_chunks, calls * whole_bytes)

    pairs = 2 * model.num_layers
    yield exchange("sequence before attention and feed-forward, forward", "all_gather", pairs)
    yield exchange("sequence after them, forward", "reduce_scatter", pairs)
    yield exchange("sequence before them, again for the gradients of weights", "all_gather", pairs)
    yield exchange("gradients of what is after them", "all_gather", pairs)
    yield exchange("gradients of what is before them", "reduce_scatter", pairs)
    if step.recompute == "full":
        yield exchange("sequence before them, recomputed", "all_gather", pairs)
        yield exchange("sequence after them, recomputed", "reduce_scatter", pairs)
    yield exchange("embeddings", "reduce_scatter", 1)
    yield exchange("gradients of embeddings", "all_gather", 1)
    yield exchange("last hidden states", "all_gather", 1)
    yield exchange("gradients of last hidden states", "reduce_scatter", 1)


def _shared_vocabulary(ranks: ParallelConfig, step: RankStep) -> Iterable[Collective]:
    """Tensor parallelism: for the loss, two float32 of each rank a token."""
    calls = step.micro_batches * -(-step.tokens // step.loss_chunk_tokens)
    loss_bytes = step.micro_batches * step.tokens * 2 * ranks.tp * _FLOAT32_BYTES
    yield Collective("log-sums and logits of targets", "all_reduce", "tp", ranks.tp, calls, loss_bytes)


def _shared_gains(model: ModelConfig, ranks: ParallelConfig, step: RankStep) -> Iterable[Collective]:
    """Tensor parallelism: gradients of gains, of which each rank has those of its part of the sequence."""
    gains = 2 * model.num_layers + 1
    # With several micro-batches FSDP2 accumulates in float32.
    value_bytes = step.compute_bytes if step.micro_batches == 1 else _FLOAT32_BYTES
    gain_bytes = gains * model.dim * value_bytes
    yield Collective("gradients of gains", "all_reduce", "tp", ranks.tp, gains, gain_bytes)


def _scalars(model: ModelConfig, ranks: ParallelConfig) -> Iterable[Collective]:
    """What is agreed on in a step: counts and sums of a few bytes."""
    dp, shared = ranks.dp_replicate * ranks.dp_shard, ranks.dp_shard * ranks.tp
    both = 2 * _FLOAT32_BYTES
    yield Collective("number of targets", "all_reduce", "dp", dp, 1, _INT64_BYTES)
    yield Collective("loss and request to stop", "all_reduce", "world", dp * ranks.tp, 1, both)
    parameters = len(other_weights(model)) + model.num_layers * len(layer_weights(model))
    across: Dimension = "dp_shard" if ranks.tp == 1 else "dp_shard_tp"
    norm_bytes = parameters * _FLOAT32_BYTES
    yield Collective("squared norms of gradients", "all_reduce", across, shared, 1, norm_bytes)
    replicas = ranks.dp_replicate
    yield Collective(
        "global norm, the same for replicas", "all_reduce", "dp_replicate", replicas, 1, _FLOAT32_BYTES
    )


def _padded(weights: Iterable[Weight], ranks: ParallelConfig) -> int:
    """Values of the parts that `dp_shard` ranks share, rounded up so that each has as many rows."""
    return ranks.dp_shard * values(weights, tp=ranks.tp, dp_shard=ranks.dp_shard)
