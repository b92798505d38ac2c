"""RoPE in real numbers turns the pairs it should by the angles it should."""

from __future__ import annotations

import math
from unittest.mock import patch

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from criadero.model.config import ModelConfig, RopeScaling
from criadero.model.rope import RopeTables, apply_rope, inverse_frequencies, rope_tables
from naive_llama import naive_rope

LLAMA_3 = RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_seq_len=8192)


def config_of(head_dim: int, *, theta: float = 10000.0, scaling: RopeScaling | None = None) -> ModelConfig:
    return ModelConfig(
        dim=3 * head_dim, num_layers=1, num_heads=3, head_dim=head_dim, rope_theta=theta, rope_scaling=scaling
    )


def random_heads(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


def positions(length: int, *, start: int = 0) -> torch.Tensor:
    return torch.arange(start, start + length).unsqueeze(0)


def test_halves_turn_as_interleaved_complex_pairs_do():
    config, x_BTHE = config_of(10, theta=500.0), random_heads(2, 5, 3, 10)
    turned = apply_rope(x_BTHE, rope_tables(positions(5), config)).double()
    pairs = [element for i in range(5) for element in (i, i + 5)]
    for row in range(2):
        for head in range(3):
            expected_TE = naive_rope(x_BTHE[row, :, head][:, pairs].double(), theta=500.0)
            torch.testing.assert_close(turned[row, :, head][:, pairs], expected_TE, rtol=0, atol=1e-6)


def test_scores_depend_on_distance_only():
    config, q_BTHE, k_BTHE = config_of(8), random_heads(1, 1, 3, 8), random_heads(1, 1, 3, 8) + 1

    def score(q_position: int, k_position: int) -> torch.Tensor:
        q = apply_rope(q_BTHE.double(), rope_tables(positions(1, start=q_position), config))
        k = apply_rope(k_BTHE.double(), rope_tables(positions(1, start=k_position), config))
        return (q * k).sum(-1)

    torch.testing.assert_close(score(7, 3), score(104, 100), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(score(7, 3), score(7, 4), atol=1e-3)


def test_each_row_may_have_positions_of_its_own():
    config, x_BTHE = config_of(6), random_heads(2, 5, 3, 6)
    rows = torch.stack((torch.arange(5), torch.arange(11, 16)))
    together = apply_rope(x_BTHE, rope_tables(rows, config))
    alone = [apply_rope(x_BTHE[i : i + 1], rope_tables(rows[i : i + 1], config)) for i in range(2)]
    assert torch.equal(together, torch.cat(alone))


def test_bfloat16_heads_are_turned_in_float32_and_rounded_once():
    config, x_BTHE = config_of(8), random_heads(1, 300, 1, 8).bfloat16()
    tables = rope_tables(positions(300), config)
    assert tables.cos.dtype == tables.signed_sin.dtype == torch.float32
    assert torch.equal(apply_rope(x_BTHE, tables), apply_rope(x_BTHE.float(), tables).bfloat16())


@pytest.mark.parametrize("theta", [10000.0, 500000.0])
def test_plain_frequencies_are_powers_of_theta(theta: float):
    expected = [theta ** (-2 * i / 16) for i in range(8)]
    actual = inverse_frequencies(config_of(16, theta=theta))
    assert actual.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("scaling", [LLAMA_3, RopeScaling(factor=32.0, high_freq_factor=7.5)])
def test_llama_3_scaling_equals_transformers(scaling: RopeScaling):
    parameters = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_max_seq_len,
    }
    theirs = LlamaConfig(hidden_size=3 * 128, num_attention_heads=3, head_dim=128, rope_parameters=parameters)
    expected, _ = ROPE_INIT_FUNCTIONS["llama3"](theirs, torch.device("cpu"))
    actual = inverse_frequencies(config_of(128, theta=500000.0, scaling=scaling))
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=0)


def test_llama_3_scaling_keeps_short_waves_and_slows_long_ones():
    plain = inverse_frequencies(config_of(128, theta=500000.0))
    scaled = inverse_frequencies(config_of(128, theta=500000.0, scaling=LLAMA_3))
    wavelengths = 2 * math.pi / plain
    short, long = wavelengths < 8192 / 4, wavelengths > 8192
    assert short.any()
    assert long.any()
    assert torch.equal(scaled[short], plain[short])
    torch.testing.assert_close(scaled[long], plain[long] / 8)
    between = ~short & ~long
    assert ((scaled < plain) & (scaled > plain / 8))[between].all()


def test_the_written_out_gradient_on_the_cpu_is_the_rotation_back() -> None:
    tables = rope_tables(torch.arange(5).unsqueeze(0), config_of(6))
    cos, signed_sin = tables.cos.double(), tables.signed_sin.double()
    x_BTHE = torch.randn(2, 5, 3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: apply_rope(x, RopeTables(cos, signed_sin)), (x_BTHE,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_path_of_the_cpu_gives_the_bits_of_the_other_one(dtype: torch.dtype) -> None:
    tables = rope_tables(torch.arange(5).unsqueeze(0), config_of(6))
    x_BTHE = torch.randn(2, 5, 3, 6).to(dtype)
    with patch.object(torch.compiler, "is_compiling", return_value=True):
        expected = apply_rope(x_BTHE, tables)
    assert torch.equal(apply_rope(x_BTHE, tables), expected)
