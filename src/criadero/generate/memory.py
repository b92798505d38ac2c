"""The memory a model takes when it answers: weights by format, keys and values of the context, workspace.

Entry point: `serving_memory`. Plain arithmetic on the config; nothing is allocated. What CUDA itself takes
of a card is not in it (`planner.devices.RESERVED_BYTES`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from criadero.formats.stored import parameter_shapes
from criadero.model.config import ModelConfig

WeightFormat = Literal["float32", "bfloat16", "float16", "8 bits", "4 bits"]
# Of a quantised weight: its code and a 32nd of a float16 scale and minimum.
_BITS_HELD: Mapping[WeightFormat, int] = {
    "float32": 32, "bfloat16": 16, "float16": 16, "8 bits": 9, "4 bits": 5,
}  # fmt: skip
_ENDS = ("embedding.weight", "output.weight")
# A matrix on its way to a product, at most: codes unpacked, float32 values, and those rounded to 16 bits.
_WORKSPACE_BYTES_A_WEIGHT = 1 + 4 + 2
_WEIGHTS_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class ServingMemory:
    """Bytes a model takes when it answers."""

    weights_bytes: int
    cache_bytes: int
    """Keys and values of all tokens that are held."""
    workspace_bytes: int
    """Weights that are dequantised for the product at hand."""

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.weights_bytes + self.cache_bytes + self.workspace_bytes


def serving_memory(
    config: ModelConfig, *, weights: WeightFormat, context_tokens: int, cache_bytes_per_value: int = 2
) -> ServingMemory:
    """Estimate the memory for answering.

    Args:
        config: the architecture.
        weights: what matrices are held in; of those of 4 bits, embedding and output in 8, as
            `criadero quantize` writes them. Norms are float32.
        context_tokens: of all sequences together.
        cache_bytes_per_value: 2 for a cache in bfloat16, 4 in float32.
    """
    total_bits, is_quantized = 0, weights in ("8 bits", "4 bits")
    for name, shape in parameter_shapes(config).items():
        held: WeightFormat = weights
        if is_quantized and len(shape) == 1:
            held = "float32"
        elif is_quantized and name in _ENDS:
            held = "8 bits"
        total_bits += math.prod(shape) * _BITS_HELD[held]
    values_per_token = 2 * config.num_layers * config.num_kv_heads * config.head_dim
    return ServingMemory(
        weights_bytes=total_bits // 8,
        cache_bytes=values_per_token * cache_bytes_per_value * context_tokens,
        workspace_bytes=_WORKSPACE_BYTES_A_WEIGHT * _WEIGHTS_AT_ONCE if is_quantized else 0,
    )
