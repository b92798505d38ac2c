"""The feed-forward is w2(silu(w1 x) * w3 x)."""

from __future__ import annotations

import torch

from criadero.model.config import ModelConfig
from criadero.model.feed_forward import FeedForward
from naive_llama import naive_swiglu


def test_feed_forward_is_the_swiglu_formula():
    layer = FeedForward(ModelConfig(dim=6, num_layers=1, num_heads=3, hidden_dim=11)).double()
    x_BTD = torch.randn(2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    expected = naive_swiglu(
        x_BTD, w1=layer.gate_proj.weight, w2=layer.down_proj.weight, w3=layer.up_proj.weight
    )
    torch.testing.assert_close(layer(x_BTD), expected, rtol=1e-12, atol=1e-12)
    assert [name for name, _ in layer.named_parameters() if "bias" in name] == []
