"""Rotary position embedding in real numbers (LLaMA 2.2, "Rotary Embeddings"; Su et al. 2021).

Entry points: `rope_tables` once per forward pass, `apply_rope` on q and k in every layer. Pairs are split
in halves as in Hugging Face: element i turns with element i + E/2. Meta's and GGUF's interleaved pairs
differ by a permutation of the rows of q and k, applied when such weights come in. Letters: B batch, T
sequence, H heads, E head width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from criadero.model.config import ModelConfig, RopeScaling

_BLOCK_ELEMENTS = 2**16  # 256 kB in float32


@dataclass(frozen=True)
class RopeTables:
    """Cosines and signed sines of every position's angles, both float32 and (B or 1, T, 1, E).

    Both halves of the head are there, the first half of the sines negative, so that a rotation is one product
    and one multiply-add.
    """

    cos: Tensor
    signed_sin: Tensor


def inverse_frequencies(config: ModelConfig, *, device: torch.device | str = "cpu") -> Tensor:
    """Return the angle per position of each pair, theta^(-2i/E), float32 (E/2).

    float32, not more exact: the released weights were trained with these rounded values.
    """
    exponents = torch.arange(0, config.head_dim, 2, device=device, dtype=torch.float32) / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponents
    return frequencies if config.rope_scaling is None else _stretch(frequencies, config.rope_scaling)


def _stretch(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """Apply Llama-3 scaling; between the bounds the slowed and the kept frequency are mixed linearly."""
    turns = scaling.original_max_seq_len / (2 * math.pi / frequencies)  # within the original context
    keep = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    keep = keep.clamp(0.0, 1.0)
    return (1 - keep) * (frequencies / scaling.factor) + keep * frequencies


def rope_tables(positions_BT: Tensor, config: ModelConfig) -> RopeTables:
    """Return the tables for integer positions (B or 1, T), on their device."""
    frequencies = inverse_frequencies(config, device=positions_BT.device)
    angles_BTE = positions_BT.unsqueeze(-1).to(torch.float32) * frequencies
    # differs from paper: its code turns neighbouring elements as complex numbers; see the top of this file.
    cos, sin = angles_BTE.cos(), angles_BTE.sin()
    return RopeTables(
        cos=torch.cat((cos, cos), dim=-1).unsqueeze(2), signed_sin=torch.cat((-sin, sin), dim=-1).unsqueeze(2)
    )


def apply_rope(x_BTHE: Tensor, tables: RopeTables) -> Tensor:
    """Rotate every head of (B, T, H, E) by its position; float32 inside, the input's dtype outside."""
    eager = not torch.compiler.is_compiling() and not isinstance(x_BTHE, DTensor)
    if eager and x_BTHE.device.type == "cpu":
        rotated: Tensor = _CPURotation.apply(x_BTHE, tables.cos, tables.signed_sin)  # type: ignore[no-untyped-call]
        return rotated
    x = x_BTHE.float() if x_BTHE.dtype.itemsize < 4 else x_BTHE
    halves_swapped = x.roll(x.shape[-1] // 2, dims=-1)
    return torch.addcmul(x * tables.cos, halves_swapped, tables.signed_sin).to(x_BTHE.dtype)


class _CPURotation(torch.autograd.Function):
    """The same products in the same order, in half the time: no swapped copy, and nothing kept of x.

    A rotation's gradient is the rotation back: cosines as they are, sines negated.
    """

    @staticmethod
    def forward(ctx: Any, x_BTHE: Tensor, cos: Tensor, signed_sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, signed_sin)
        return _rotate_halves(x_BTHE, cos, signed_sin, direction=1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_BTHE: Tensor) -> tuple[Tensor, None, None]:
        cos, signed_sin = ctx.saved_tensors
        return _rotate_halves(grad_BTHE, cos, signed_sin, direction=-1), None, None


def _rotate_halves(x_BTHE: Tensor, cos: Tensor, signed_sin: Tensor, *, direction: int) -> Tensor:
    if x_BTHE.numel() <= _BLOCK_ELEMENTS:
        return _rotated(x_BTHE, cos, signed_sin, direction=direction).to(x_BTHE.dtype)
    rotated: Tensor = _rotate_in_blocks(x_BTHE, cos, signed_sin, direction)
    return rotated


# One operator, because selective recomputation looks at every operator from Python.
@torch.library.custom_op("criadero::rotate_in_blocks", mutates_args=())
def _rotate_in_blocks(x_BTHE: Tensor, cos: Tensor, signed_sin: Tensor, direction: int) -> Tensor:
    """Rotate some tokens of one sequence at a time, so that caches hold them."""
    out = torch.empty(x_BTHE.shape, dtype=x_BTHE.dtype, device=x_BTHE.device)
    tables = (table.expand(len(x_BTHE), -1, -1, -1) for table in (cos, signed_sin))
    tokens = max(1, _BLOCK_ELEMENTS // x_BTHE[0, 0].numel())
    for row in zip(x_BTHE, *tables, out, strict=True):
        for x, row_cos, row_sin, part in zip(*(tensor.split(tokens) for tensor in row), strict=True):
            part.copy_(_rotated(x, row_cos, row_sin, direction=direction))
    return out


@_rotate_in_blocks.register_fake
def _(x_BTHE: Tensor, *_: Any) -> Tensor:
    return x_BTHE.new_empty(x_BTHE.shape)


def _rotated(x: Tensor, cos: Tensor, signed_sin: Tensor, *, direction: int) -> Tensor:
    x = x.float() if x.dtype.itemsize < 4 else x
    rotated = x * cos
    first, second = rotated.chunk(2, dim=-1)
    x_first, x_second = x.chunk(2, dim=-1)
    sin_first, sin_second = signed_sin.chunk(2, dim=-1)
    first.addcmul_(x_second, sin_first, value=direction)
    second.addcmul_(x_first, sin_second, value=direction)
    return rotated
