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
from criadero.planner.step import RankStep, Recompute
from criadero.planner.weights import layer_weights, other_weights, values

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
    model: ModelConfig, ranks: ParallelConfig, step: RankStep, *, device: Literal["cpu", "cuda"]
) -> Memory:
    """Return what the first rank of a mesh needs for training steps.

    Args:
        model: sizes of the decoder.
        ranks: the mesh, `dp_shard` settled (not -1).
        step: what the rank does.
        device: whose allocator and buffers; what CUDA itself and NCCL take is not in any part.
    """
    tp = ranks.tp
    layer, other = values(layer_weights(model), tp=tp), values(other_weights(model), tp=tp)
    shard = model.num_layers * values(layer_weights(model), tp=tp, dp_shard=ranks.dp_shard)
    shard += values(other_weights(model), tp=tp, dp_shard=ranks.dp_shard)
    # On CPU a rank that shards with nobody keeps the cast weights of all layers; see `parallel.parallelize`.
    gathered_layers = model.num_layers if device == "cpu" and ranks.dp_shard == 1 else 2
    whole_gradients = _FLOAT32_BYTES * (model.num_layers * layer + other)
    parts = {
        "weights": _FLOAT32_BYTES * shard,
        "gradients": _FLOAT32_BYTES * shard,
        "optimizer_states": 2 * _FLOAT32_BYTES * shard,
        "accumulated_gradients": whole_gradients if step.micro_batches > 1 else 0,
        "gathered_weights": (other + gathered_layers * layer) * step.compute_bytes,
        "communication_buffers": _buffers(layer, other, ranks=ranks, compute_bytes=step.compute_bytes),
        "activations": _activations(model, step, tp=tp),
        "logits": _logits(model, step, in_blocks=device == "cpu" and tp == 1) // tp,
        "workspace": _workspace(model, step, tp=tp),
    }
    return Memory(**parts, allocator=_allocator(parts, device))


def _allocator(parts: dict[str, int], device: str) -> int:
    if device == "cpu":
        names = ("gradients", "accumulated_gradients", "communication_buffers")
        lost = _HEAP_HOLES * sum(parts[name] for name in names)
        return max(0, int(lost - _HEAP_REUSE * (parts["activations"] + parts["workspace"])))
    states = parts["weights"] + parts["gradients"] + parts["optimizer_states"]
    return int(_CUDA_HOLES * (sum(parts.values()) - states))


def _activations(model: ModelConfig, step: RankStep, *, tp: int) -> int:
    """What layers keep, and the float32 log-sum of each head's scores; then the ends of the model.

    Embeddings and the last norm's output are cut by tp; the last hidden states and their gradient are not.
    """
    log_sums = 0 if step.recompute == "full" else model.num_heads * _FLOAT32_BYTES
    kept_bytes = _kept_values(model, step.recompute) * step.compute_bytes + log_sums
    ends_bytes = 2 * step.tokens * model.dim * step.compute_bytes
    return (step.tokens * model.num_layers * kept_bytes + ends_bytes) // tp + ends_bytes


def _workspace(model: ModelConfig, step: RankStep, *, tp: int) -> int:
    """What a layer computes again, and the gradients of its feed-forward.

    Under tensor parallelism also the sequence gathered and laid out, twice each.
    """
    repeated = _kept_values(model, "none") - _kept_values(model, step.recompute)
    values_of_token = repeated + 3 * model.hidden_dim + 2 * model.dim
    sequences = 4 * model.dim if tp > 1 else 0
    token_bytes = step.tokens * step.compute_bytes
    return token_bytes * values_of_token // tp + token_bytes * sequences


def _kept_values(model: ModelConfig, recompute: Recompute) -> int:
    """Return how many values of a token a layer keeps for its backward pass.

    Without recomputation: two residual streams and two normalised ones, q, k, v and the output of attention,
    gate and up, SiLU of the gate, and their product.
    """
    queries, keys = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    return {
        "none": 4 * model.dim + 2 * queries + 2 * keys + 4 * model.hidden_dim,
        "paper": 2 * model.dim + 2 * queries + 2 * keys + 2 * model.hidden_dim,
        "full": model.dim,
    }[recompute]


def _buffers(layer: int, other: int, *, ranks: ParallelConfig, compute_bytes: int) -> int:
    """Float32 gradients before they are scattered: of embedding and output, and of two layers.

    Ranks that share weights also gather them through a buffer.
    """
    values_at_once = other + 2 * layer
    return values_at_once * (_FLOAT32_BYTES + (compute_bytes if ranks.dp_shard > 1 else 0))


def _logits(model: ModelConfig, step: RankStep, *, in_blocks: bool) -> int:
    """Logits of a chunk, or the gradients they become, and the gradient of the output matrix.

    Not `in_blocks`, the chunk also exists in float32, twice. Logits of one chunk go when the next ones are
    there. The matrix's gradient is float32; when the logits have gone it is scaled into another, and cast.
    """
    chunk = min(step.loss_chunk_tokens, step.tokens)
    copies = step.compute_bytes * (2 if chunk < step.tokens else 1)
    copies += 0 if in_blocks else 2 * _FLOAT32_BYTES
    gradient = model.vocab_size * model.dim
    at_once = max(model.vocab_size * chunk * copies, gradient * (_FLOAT32_BYTES + step.compute_bytes))
    return at_once + gradient * _FLOAT32_BYTES
