"""Causal self-attention with grouped-query heads (LLaMA 2.2 and 2.4 item 1; Ainslie et al. 2023).

Entry point: `Attention`. `scaled_dot_product_attention` never stores the attention weights where a fused
kernel exists; training on the CPU without a mask has a backward pass of its own (`causal_attention`). A cache
keeps earlier keys and values; the attention only asks it to append and to give back all of them. Letters:
B batch, T new tokens, S all tokens attended to, D model width, H heads, K key/value heads, E head width.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from criadero.model.causal_attention import causal_attention, suits
from criadero.model.config import ModelConfig
from criadero.model.layout import WHOLE, Layout
from criadero.model.rope import RopeTables, apply_rope


class KeyValueStore(Protocol):
    """What attention needs of a cache."""

    def update(self, layer_index: int, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor]:
        """Append the new keys and values of one layer, return all of them, (B, K, S, E) each."""
        ...


class Attention(nn.Module):
    """Multi-head attention with RoPE on q and k, no biases; each key/value head serves H/K heads."""

    def __init__(self, config: ModelConfig, *, layer_index: int) -> None:
        super().__init__()
        self.layer_index = layer_index
        self.layout: Layout = WHOLE
        self.head_dim = config.head_dim
        self.q_proj = nn.Linear(config.dim, config.num_heads * config.head_dim, bias=False)
        self.k_proj = nn.Linear(config.dim, config.num_kv_heads * config.head_dim, bias=False)
        self.v_proj = nn.Linear(config.dim, config.num_kv_heads * config.head_dim, bias=False)
        self.o_proj = nn.Linear(config.num_heads * config.head_dim, config.dim, bias=False)

    def forward(
        self,
        x_BTD: Tensor,
        tables: RopeTables,
        *,
        mask_BTS: Tensor | None = None,
        cache: KeyValueStore | None = None,
    ) -> Tensor:
        """Return (B, T, D). `mask_BTS` is boolean, True where a token may attend; None is causal."""
        # -1 instead of the number of heads: under tensor parallelism a rank holds only some of them.
        split_heads = (-1, self.head_dim)
        q, k, v = self.layout.columns(x_BTD, (self.q_proj, self.k_proj, self.v_proj))
        q_BTHE = apply_rope(q.unflatten(-1, split_heads), tables)
        k_BTKE = apply_rope(k.unflatten(-1, split_heads), tables)
        v_BTKE = v.unflatten(-1, split_heads)
        if mask_BTS is None and cache is None and suits(q_BTHE):
            out_BTHE = causal_attention(q_BTHE, k_BTKE, v_BTKE)
        else:
            q_BHTE, k_BKSE, v_BKSE = (x.transpose(1, 2) for x in (q_BTHE, k_BTKE, v_BTKE))
            if cache is not None:
                k_BKSE, v_BKSE = cache.update(self.layer_index, k_BKSE, v_BKSE)
            out_BTHE = _attend(q_BHTE, k_BKSE, v_BKSE, mask_BTS=mask_BTS).transpose(1, 2)
        return self.layout.rows(out_BTHE.flatten(2), self.o_proj)


def _attend(q_BHTE: Tensor, k_BKSE: Tensor, v_BKSE: Tensor, *, mask_BTS: Tensor | None) -> Tensor:
    num_new, num_all = q_BHTE.shape[2], k_BKSE.shape[2]
    mask = None if mask_BTS is None else mask_BTS.unsqueeze(1)
    if mask is None and 1 < num_new < num_all:  # new tokens after a cached prefix
        mask = _causal_after_prefix(num_new, num_all, device=q_BHTE.device)
    # differs from paper: PyTorch's own fused kernels do what 2.4 item 1 takes from xformers.
    return F.scaled_dot_product_attention(
        q_BHTE,
        k_BKSE,
        v_BKSE,
        attn_mask=mask,
        is_causal=mask is None and num_new == num_all,
        enable_gqa=q_BHTE.shape[1] != k_BKSE.shape[1],
    )


def _causal_after_prefix(num_new: int, num_all: int, *, device: torch.device) -> Tensor:
    """Return the (T, S) mask of T tokens that follow S - T earlier ones; SDPA's own ignores those."""
    return torch.ones(num_new, num_all, dtype=torch.bool, device=device).tril(num_all - num_new)
