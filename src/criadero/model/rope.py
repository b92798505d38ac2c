"""Rotary position embedding in real numbers (LLaMA 2.2, "Rotary Embeddings"; Su et al. 2021).

Entry points: `rope_tables` once per forward pass, `apply_rope` on q and k in every layer. Pairs are split
in halves as in Hugging Face: element i turns with element i + E/2. Meta's and GGUF's interleaved pairs
differ by a permutation of the rows of q and k, applied when such weights come in. Letters: B batch, T
sequence, H heads, E head width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from criadero.model.config import ModelConfig, RopeScaling


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
    cos, sin = angles_BTE.cos(), angles_BTE.sin()
    return RopeTables(
        cos=torch.cat((cos, cos), dim=-1).unsqueeze(2), signed_sin=torch.cat((-sin, sin), dim=-1).unsqueeze(2)
    )


def apply_rope(x_BTHE: Tensor, tables: RopeTables) -> Tensor:
    """Rotate every head of (B, T, H, E) by its position; float32 inside, the input's dtype outside."""
    x = x_BTHE.float() if x_BTHE.dtype.itemsize < 4 else x_BTHE
    halves_swapped = x.roll(x.shape[-1] // 2, dims=-1)
    return torch.addcmul(x * tables.cos, halves_swapped, tables.signed_sin).to(x_BTHE.dtype)
