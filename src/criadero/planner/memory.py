"""What one rank holds in memory, part by part, by arithmetic. Entry point: `memory_per_rank`.

Weights, gradients and optimizer states are exact; activations follow from what each layer keeps for its
backward pass. Parts are at their largest, which they are at different moments, and the total is their sum:
what one frees is hardly ever in one piece when another asks for room (docs/adr/0018). Letters: D model width,
H heads, K key/value heads, E head width, F feed-forward width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from criadero.model.config import ModelConfig
from criadero.parallel.config import ParallelConfig
from criadero.planner.weights import layer_weights, other_weights, values

Recompute = Literal["none", "paper", "full"]

_FLOAT32_BYTES = 4
# What glibc's heap loses to holes, fitted to the measurements of benchmarks/memory.py: this part of gradients
# and their buffers, less this part of activations, in whose room gradients find place as these go.
_HEAP_HOLES, _HEAP_REUSE = 0.6, 0.2
# CUDA's allocator hands out pieces of 2 and 20 MB. An assumption: nothing was measured there.
_CUDA_HOLES = 0.05


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
        allocator: holes between blocks.
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
    # On CPU a rank that shards with nobody keeps the cast weights of all layers; see `parallel.parallelize`.
    gathered_layers = model.num_layers if device == "cpu" and ranks.dp_shard == 1 else 2
    kept_bytes = model.num_layers * _bytes(model, kept, recompute, compute_bytes)
    residual_bytes = tokens * model.dim * compute_bytes
    # Embeddings and the last norm's output are cut by tp; the last hidden states and their gradient are not.
    parts = {
        "weights": _FLOAT32_BYTES * shard,
        "gradients": _FLOAT32_BYTES * shard,
        "optimizer_states": 2 * _FLOAT32_BYTES * shard,
        "accumulated_gradients": (model.num_layers * layer + other) * _FLOAT32_BYTES * (micro_batches > 1),
        "gathered_weights": (other + gathered_layers * layer) * compute_bytes,
        "communication_buffers": _buffers(layer, other, ranks=ranks, compute_bytes=compute_bytes),
        "activations": (tokens * kept_bytes + 2 * residual_bytes) // tp + 2 * residual_bytes,
        "logits": _logits(
            model,
            tokens,
            loss_chunk_tokens,
            compute_bytes=compute_bytes,
            in_blocks=device == "cpu" and tp == 1,
        )
        // tp,
        "workspace": _workspace(model, tokens, repeated, compute_bytes=compute_bytes) // tp
        + 4 * residual_bytes * (tp > 1),  # the sequence gathered and laid out, twice each
    }
    return Memory(**parts, allocator=_allocator(parts, device))


def _allocator(parts: dict[str, int], device: str) -> int:
    if device == "cpu":
        names = ("gradients", "accumulated_gradients", "communication_buffers")
        lost = _HEAP_HOLES * sum(parts[name] for name in names)
        return max(0, int(lost - _HEAP_REUSE * (parts["activations"] + parts["workspace"])))
    states = parts["weights"] + parts["gradients"] + parts["optimizer_states"]
    return int(_CUDA_HOLES * (sum(parts.values()) - states))


def _workspace(model: ModelConfig, tokens: int, repeated: int, *, compute_bytes: int) -> int:
    """What a layer computes again, and the gradients of its feed-forward."""
    return tokens * (repeated + 3 * model.hidden_dim + 2 * model.dim) * compute_bytes


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

    Ranks that share weights also gather them through a buffer.
    """
    values_at_once = other + 2 * layer
    return values_at_once * (_FLOAT32_BYTES + (compute_bytes if ranks.dp_shard > 1 else 0))


def _logits(
    model: ModelConfig, tokens: int, chunk_tokens: int, *, compute_bytes: int, in_blocks: bool
) -> int:
    """Logits of a chunk, or the gradients they become, and the gradient of the output matrix.

    Not `in_blocks`, the chunk also exists in float32, twice. Logits of one chunk go when the next ones are
    there. The matrix's gradient is float32; when the logits have gone it is scaled into another, and cast.
    """
    chunk = min(chunk_tokens, tokens)
    copies = compute_bytes * (2 if chunk < tokens else 1) + (0 if in_blocks else 2 * _FLOAT32_BYTES)
    gradient = model.vocab_size * model.dim
    at_once = max(model.vocab_size * chunk * copies, gradient * (_FLOAT32_BYTES + compute_bytes))
    return at_once + gradient * _FLOAT32_BYTES
