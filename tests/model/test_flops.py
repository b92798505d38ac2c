"""The operation counts behind every MFU figure, checked by hand, by the paper and by counting operators."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from criadero.model.config import ModelConfig
from criadero.model.flops import flops_per_token
from criadero.model.presets import preset
from criadero.model.transformer import Transformer

A100_FLOPS_PER_SECOND = 312e12


def test_the_count_by_hand_of_a_small_model():
    config = ModelConfig(vocab_size=10, dim=8, num_layers=2, num_heads=4, num_kv_heads=2, hidden_dim=12)
    # embedding 10*8, output 10*8, last norm 8; a layer: q and o 8*8, k and v 4*8, three 8*12, two norms 8
    parameters = 80 + 80 + 8 + 2 * (64 + 64 + 32 + 32 + 3 * 96 + 2 * 8)
    assert parameters == 1160
    assert flops_per_token(config, 5, attention=False) == 6960
    # 12 * layers * dim * seq = 12 * 2 * 8 * 5
    assert flops_per_token(config, 5, attention=True) == 6960 + 960


@pytest.mark.parametrize(
    ("name", "tokens_per_second", "mfu_6n", "mfu_palm"),
    [("7b", 3370, 43.7, 47.2), ("13b", 2055, 51.5, 54.8), ("33b", 733, 45.9, 48.2), ("65b", 380, 47.8, 49.7)],
)
def test_the_papers_training_speeds_give_its_utilisation(name, tokens_per_second, mfu_6n, mfu_palm):
    """GPU-hours of Table 15 as tokens per second and GPU, over an A100's peak; sequences of 2,048."""
    percent = 100 * tokens_per_second / A100_FLOPS_PER_SECOND
    assert flops_per_token(preset(name), 2048, attention=False) * percent == pytest.approx(mfu_6n, abs=0.1)
    assert flops_per_token(preset(name), 2048, attention=True) * percent == pytest.approx(mfu_palm, abs=0.1)


def test_operators_counted_in_a_forward_pass_agree():
    """Forward is a third; the embedding and the norms are in N but multiply no matrix."""
    config = ModelConfig(vocab_size=50, dim=24, num_layers=3, num_heads=3, hidden_dim=40)
    model, tokens_BT = Transformer(config), torch.zeros(2, 7, dtype=torch.int64)
    # The fused kernel is not in the counter's table; the plain one multiplies the same matrices.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(tokens_BT)
    without_matrix = 6 * (50 * 24 + 24 * (2 * 3 + 1))
    expected = (flops_per_token(config, 7, attention=True) - without_matrix) // 3 * tokens_BT.numel()
    assert counter.get_total_flops() == expected
