"""The memory for answering: what is held, by arithmetic; the paper's 13B on cards of 16 to 32 GB."""

from __future__ import annotations

import pytest

from criadero.generate.memory import serving_memory
from criadero.model.config import ModelConfig
from criadero.model.presets import preset
from criadero.model.quantized import quantize
from criadero.model.transformer import Transformer
from criadero.planner.devices import RESERVED_BYTES

CARD_16, CARD_24 = 16_000_000_000 - RESERVED_BYTES, 24_000_000_000 - RESERVED_BYTES


def test_llama_13b_with_4_bits_and_its_whole_context_fits_a_card_of_16_gb():
    memory = serving_memory(preset("13b"), weights="4 bits", context_tokens=2048)
    assert memory.weights_bytes == pytest.approx(8.30e9, rel=0.005)
    assert memory.cache_bytes == 2 * 40 * 5120 * 2 * 2048  # 1.7 GB
    assert memory.total_bytes < CARD_16


def test_llama_13b_with_8_bits_fits_a_card_of_24_gb_and_not_one_of_16():
    memory = serving_memory(preset("13b"), weights="8 bits", context_tokens=2048)
    assert memory.weights_bytes == pytest.approx(14.64e9, rel=0.005)
    assert CARD_16 < memory.total_bytes < CARD_24


def test_llama_13b_in_16_bits_fits_neither():
    memory = serving_memory(preset("13b"), weights="bfloat16", context_tokens=2048)
    assert memory.weights_bytes == pytest.approx(26.03e9, rel=0.005)
    assert memory.total_bytes > CARD_24


@pytest.mark.parametrize("bits", [4, 8])
def test_the_estimate_is_what_quantised_matrices_hold(bits: int):
    config = ModelConfig(
        vocab_size=37, dim=64, hidden_dim=96, num_layers=2, num_heads=4, num_kv_heads=2, max_seq_len=16
    )
    held = 0
    for name, weight in Transformer(config).named_parameters():
        ends = name in ("embedding.weight", "output.weight")
        held += weight.nbytes if weight.ndim == 1 else quantize(weight, bits=8 if ends else bits).size_bytes
    memory = serving_memory(config, weights="4 bits" if bits == 4 else "8 bits", context_tokens=3)
    assert memory.weights_bytes == held
    assert memory.cache_bytes == 2 * 2 * 2 * 16 * 2 * 3
