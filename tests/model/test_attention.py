"""Attention is softmax(q k^T / sqrt(E)) v of each head, over what the mask and the cache let it see."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from criadero.model.attention import Attention
from criadero.model.config import ModelConfig
from criadero.model.rope import RopeTables, apply_rope, rope_tables
from naive_llama import naive_attention

B, T, H, E = 2, 5, 6, 4


class GivenPrefix:
    """A cache that already holds some keys and values."""

    def __init__(self, k_BKPE: Tensor, v_BKPE: Tensor) -> None:
        self.earlier = (k_BKPE, v_BKPE)

    def update(self, layer_index: int, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor]:
        assert layer_index == 1
        return torch.cat((self.earlier[0], k_BKTE), dim=2), torch.cat((self.earlier[1], v_BKTE), dim=2)


def attention_of(num_kv_heads: int) -> tuple[Attention, Tensor, RopeTables]:
    torch.manual_seed(6)
    config = ModelConfig(dim=9, num_layers=2, num_heads=H, num_kv_heads=num_kv_heads, head_dim=E)
    tables = rope_tables(torch.arange(T).unsqueeze(0), config)
    return Attention(config, layer_index=1).double(), torch.randn(B, T, 9, dtype=torch.float64), tables


def expected(
    layer: Attention,
    x_BTD: Tensor,
    tables: RopeTables,
    *,
    mask_BTS: Tensor,
    prefix: GivenPrefix | None = None,
) -> Tensor:
    def heads(projection: torch.nn.Linear) -> Tensor:
        return projection(x_BTD).reshape(B, T, -1, E)

    q, k = (apply_rope(heads(p), tables).transpose(1, 2) for p in (layer.q_proj, layer.k_proj))
    v = heads(layer.v_proj).transpose(1, 2)
    if prefix is not None:
        k, v = prefix.update(1, k, v)
    group = H // k.shape[1]
    rows = []
    for b in range(B):
        out = [
            naive_attention(q[b, h], k[b, h // group], v[b, h // group], mask_TS=mask_BTS[b])
            for h in range(H)
        ]
        rows.append(torch.cat(out, dim=-1))
    return layer.o_proj(torch.stack(rows))


@pytest.mark.parametrize("num_kv_heads", [6, 2, 1])
def test_attention_without_a_mask_is_causal(num_kv_heads: int):
    layer, x_BTD, tables = attention_of(num_kv_heads)
    mask_BTT = torch.ones(B, T, T, dtype=torch.bool).tril()
    torch.testing.assert_close(layer(x_BTD, tables), expected(layer, x_BTD, tables, mask_BTS=mask_BTT))


@pytest.mark.parametrize("num_kv_heads", [6, 3])
def test_attention_sees_exactly_what_the_mask_of_its_row_allows(num_kv_heads: int):
    layer, x_BTD, tables = attention_of(num_kv_heads)
    mask_BTT = torch.rand(B, T, T) < 0.5
    mask_BTT |= torch.eye(T, dtype=torch.bool)
    actual = layer(x_BTD, tables, mask_BTS=mask_BTT)
    torch.testing.assert_close(actual, expected(layer, x_BTD, tables, mask_BTS=mask_BTT))


@pytest.mark.parametrize("num_kv_heads", [6, 2])
def test_tokens_after_a_cached_prefix_see_all_of_it(num_kv_heads: int):
    layer, x_BTD, tables = attention_of(num_kv_heads)
    earlier = torch.randn(2, B, num_kv_heads, 3, E, dtype=torch.float64)
    prefix = GivenPrefix(earlier[0], earlier[1])
    mask_BTS = torch.ones(B, T, 3 + T, dtype=torch.bool).tril(3)
    actual = layer(x_BTD, tables, cache=prefix)
    torch.testing.assert_close(actual, expected(layer, x_BTD, tables, mask_BTS=mask_BTS, prefix=prefix))
