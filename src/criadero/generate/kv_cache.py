"""Keys and values of the tokens seen so far, in memory allocated once.

Entry point: `KVCache`, handed to the model's forward pass, whose attention layers call `update`. Letters:
L layers, B batch, K key/value heads, T new tokens, S all tokens so far, E head width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from criadero.model.config import ModelConfig


class KVCache:
    """A static cache of (L, B, K, max_len, E) keys and as many values.

    Args:
        config: the model's sizes.
        max_len: most tokens it will hold.
        batch_size: sequences, all of the same length.
        dtype, device: those of the model's activations.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        max_len: int,
        batch_size: int = 1,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (config.num_layers, batch_size, config.num_kv_heads, max_len, config.head_dim)
        self.keys_LBKSE = torch.empty(shape, dtype=dtype, device=device)
        self.values_LBKSE = torch.empty(shape, dtype=dtype, device=device)
        self.max_len = max_len
        self.length = 0
        """Tokens held; grows when the last layer has stored its part of a forward pass."""

    def update(self, layer_index: int, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values of one layer; return all of that layer as views, (B, K, S, E) each."""
        end = self.length + k_BKTE.shape[2]
        assert end <= self.max_len, "the generator asks for no more tokens than it made room for"
        keys, values = self.keys_LBKSE[layer_index], self.values_LBKSE[layer_index]
        keys[:, :, self.length : end] = k_BKTE
        values[:, :, self.length : end] = v_BKTE
        if layer_index == len(self.keys_LBKSE) - 1:
            self.length = end
        return keys[:, :, :end], values[:, :, :end]
