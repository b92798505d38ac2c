"""The parameters of a decoder by shape, and how ranks cut them.

Entry points: `layer_weights` and `other_weights`, and `values` to add them up. FSDP2 cuts rows: the first of
`dp_shard` ranks holds ceil(rows / dp_shard) of them, the last perhaps fewer. Tensor parallelism cuts matrices
before that and leaves gains whole (`parallel.tensor_parallel`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from criadero.model.config import ModelConfig


@dataclass(frozen=True)
class Weight:
    """Shape of a parameter, and the dimension along which tensor parallelism cuts it (None: it does not)."""

    shape: tuple[int, ...]
    cut: int | None = None

    def part(self, *, tp: int) -> tuple[int, ...]:
        """Return the shape of what one of `tp` ranks works with."""
        return tuple(length // tp if axis == self.cut else length for axis, length in enumerate(self.shape))

    def shard_values(self, *, tp: int, dp_shard: int) -> int:
        """Return how many values of its part the first of `dp_shard` ranks holds."""
        rows, *rest = self.part(tp=tp)
        return -(-rows // dp_shard) * prod(rest)


def layer_weights(model: ModelConfig) -> list[Weight]:
    """Return the parameters of one layer."""
    heads, kv_heads = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    by_rows = [(heads, model.dim), (kv_heads, model.dim), (kv_heads, model.dim)]
    by_rows += [(model.hidden_dim, model.dim)] * 2
    by_columns = [(model.dim, heads), (model.dim, model.hidden_dim)]
    gains = [Weight((model.dim,))] * 2
    return [Weight(shape, 0) for shape in by_rows] + [Weight(shape, 1) for shape in by_columns] + gains


def other_weights(model: ModelConfig) -> list[Weight]:
    """Return the parameters outside the layers: embedding, output unless it is tied, last norm."""
    table = Weight((model.vocab_size, model.dim), 0)
    return [table] * (1 if model.tie_embeddings else 2) + [Weight((model.dim,))]


def values(weights: Iterable[Weight], *, tp: int, dp_shard: int = 1) -> int:
    """Return how many values of all these the first of `dp_shard` x `tp` ranks holds."""
    return sum(weight.shard_values(tp=tp, dp_shard=dp_shard) for weight in weights)
