"""What one rank holds in memory, part by part, by arithmetic. Entry point: `memory_per_rank`.

Weights, gradients and optimizer states are exact; activations follow from what each layer keeps for its
backward pass. Parts are at their largest, and the total is their sum: when gradients come, activations go,
but no allocator fills the holes of the one with the other well enough to count on (docs/adr/0018). Letters:
D model width, H heads, K key/value heads, E head width, F feed-forward width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from criadero.model.config import ModelConfig
from criadero.parallel.config import ParallelConfig
from criadero.planner.weights import layer_weights, other_weights, values

Recompute = Literal["none", "paper", "full"]

_FLOAT32_BYTES = 4
# Of what a step takes and frees again, the holes that glibc's heap is left with; measured by
# benchmarks/memory.py. CUDA's allocator reserves in pieces of 2 and 20 MB; nothing was measured there.
_HOLES = {"cpu": 0.15, "cuda": 0.05}


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank, the first, which holds the largest shards.

    Attributes:
        weights: float32, this rank's shards.
        gradients: float32, of these shards.
        optimizer_states: AdamW's two moments, float32.
        accumulated_gradients: whole float32 gradients between the micro-batches of a step.
        gathered_weights: whole weights in the compute dtype: embedding, output, the layers at work.
        communication_buffers: gradients on their way to the shards, weights on their way from them.
        activations: what is kept for the backward pass.
        logits: one chunk of the loss, and the gradient of the output matrix.
        workspace: one layer's backward pass, with what it computes again.
        allocator: holes in the memory of the process.
    """

    weights: int
    gradients: int
    optimizer_states: int
    accumulated_gradients: int
    gathered_weights: int
    communication_buffers: int
    activations: int
    logits: int
    workspace: int
    allocator: int

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(asdict(self).values())

    @property
    def states(self) -> int:
        """What is there between steps, and gradients: the least a rank needs, whatever the batch."""
        return self.weights + self.gradients + self.optimizer_states

    def by_part(self) -> dict[str, int]:
        """Return all parts by name, and `total`."""
        return {**asdict(self), "total": self.total}


def memory_per_rank(
    model: ModelConfig,
    ranks: ParallelConfig,
    *,
    seq_len: int,
    micro_batch_sequences: int,
    micro_batches: int,
    compute_bytes: int,
    recompute: Recompute,
    loss_chunk_tokens: int,
    device: Literal["cpu", "cuda"],
) -> Memory:
    """Return what the first rank of a mesh needs for training steps.

    Args:
        model: sizes of the decoder.
        ranks: the mesh, `dp_shard` settled (not -1).
        seq_len: tokens of a sequence.
        micro_batch_sequences: sequences a rank works on at once.
        micro_batches: how many of these a rank does in a step.
        compute_bytes: of one value in the compute dtype.
        recompute: the setting `train.recompute`.
        loss_chunk_tokens: the setting `train.loss_chunk_tokens`.
        device: whose allocator and buffers; what CUDA itself and NCCL take is not in any part.
    """
    tp, tokens = ranks.tp, micro_batch_sequences * seq_len
    layer, other = values(layer_weights(model), tp=tp), values(other_weights(model), tp=tp)
    shard = model.num_layers * values(layer_weights(model), tp=tp, dp_shard=ranks.dp_shard)
    shard += values(other_weights(model), tp=tp, dp_shard=ranks.dp_shard)
    kept, repeated = _values_per_token(model, recompute)
    temporary = {
        "accumulated_gradients": (model.num_layers * layer + other) * _FLOAT32_BYTES * (micro_batches > 1),
        "gathered_weights": (other + 2 * layer) * compute_bytes,
        "communication_buffers": _buffers(layer, other, ranks=ranks, compute_bytes=compute_bytes),
        "activations": tokens
        * (model.num_layers * _bytes(model, kept, recompute, compute_bytes) + 2 * model.dim * compute_bytes)
        // tp
        + 2 * tokens * model.dim * compute_bytes,
        "logits": _logits(model, tokens, loss_chunk_tokens, compute_bytes=compute_bytes) // tp,
        "workspace": tokens * (repeated + 3 * model.hidden_dim + 2 * model.dim) * compute_bytes // tp
        + (tokens * model.dim * compute_bytes if tp > 1 else 0),
    }
    return Memory(
        weights=_FLOAT32_BYTES * shard,
        gradients=_FLOAT32_BYTES * shard,
        optimizer_states=2 * _FLOAT32_BYTES * shard,
        **temporary,
        allocator=int(_HOLES[device] * sum(temporary.values())),
    )


def _values_per_token(model: ModelConfig, recompute: Recompute) -> tuple[int, int]:
    """Return how many values of a token a layer keeps, and how many it computes again at its backward.

    Without recomputation: two residual streams and two normalised ones, q, k, v and the output of attention,
    gate and up, SiLU of the gate, and their product.
    """
    queries, keys = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    everything = 4 * model.dim + 2 * queries + 2 * keys + 4 * model.hidden_dim
    kept = {
        "none": everything,
        "paper": 2 * model.dim + 2 * queries + 2 * keys + 2 * model.hidden_dim,
        "full": model.dim,
    }[recompute]
    return kept, everything - kept


def _bytes(model: ModelConfig, kept: int, recompute: Recompute, compute_bytes: int) -> int:
    """Bytes of what a layer keeps of a token: values, and the float32 log-sum of each head's scores."""
    log_sums = 0 if recompute == "full" else model.num_heads * _FLOAT32_BYTES
    return kept * compute_bytes + log_sums


def _buffers(layer: int, other: int, *, ranks: ParallelConfig, compute_bytes: int) -> int:
    """Float32 gradients before they are scattered: of embedding and output, and of two layers.

    A rank alone copies them once more; ranks that share weights also gather them through a buffer.
    """
    gradients = (other + 2 * layer) * _FLOAT32_BYTES
    if ranks.dp_shard == 1:
        return gradients + other * _FLOAT32_BYTES
    return gradients + (other + 2 * layer) * compute_bytes


def _logits(model: ModelConfig, tokens: int, chunk_tokens: int, *, compute_bytes: int) -> int:
    """Logits of a chunk, as product, float32 and log-probabilities, beside what is left of the chunk before.

    And the gradient of the output matrix: float32, and what a chunk adds to it.
    """
    chunk = min(chunk_tokens, tokens)
    copies = compute_bytes + _FLOAT32_BYTES + (_FLOAT32_BYTES if compute_bytes < _FLOAT32_BYTES else 0)
    if chunk < tokens:
        copies += _FLOAT32_BYTES + compute_bytes + (compute_bytes if compute_bytes < _FLOAT32_BYTES else 0)
    return model.vocab_size * (chunk * copies + model.dim * (_FLOAT32_BYTES + compute_bytes))
