"""Blocks of every kind, held as codes and scales, are the numbers that the gguf library gives."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from gguf.constants import GGML_QUANT_SIZES
from gguf.constants import GGMLQuantizationType as Quantization
from gguf.quants import dequantize

from criadero.formats.gguf_blocks import HELD, quantized_from_blocks

# Where a block of each kind has its float16 numbers.
FACTORS = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82],
    "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}  # fmt: skip


def random_rows(name: str, *, largest: float = 1.0) -> npt.NDArray[np.uint8]:
    """Three rows of five blocks: every byte random, the float16 numbers finite, of either sign."""
    generator = np.random.default_rng(5)
    blocks = generator.integers(0, 256, (15, GGML_QUANT_SIZES[Quantization[name]][1]), dtype=np.uint8)
    for at in FACTORS[name]:
        numbers = generator.uniform(-largest, largest, (15, 1)).astype(np.float16)
        blocks[:, at : at + 2] = numbers.view(np.uint8).reshape(15, 2)
    return blocks.reshape(3, -1)


def test_every_kind_is_tried():
    assert {kind.name for kind in HELD} == set(FACTORS)


@pytest.mark.parametrize("largest", [1e-6, 1.0, 60000.0])
@pytest.mark.parametrize("name", FACTORS)
def test_values_equal_the_library_bit_for_bit_in_float32(name: str, largest: float):
    rows = random_rows(name, largest=largest)
    expected = torch.from_numpy(dequantize(rows, Quantization[name]))
    held = quantized_from_blocks(rows, Quantization[name])
    assert held.dequantize().dtype == torch.float32
    assert torch.equal(held.dequantize(), expected)


@pytest.mark.parametrize(
    ("name", "bits", "group", "scale"),
    [
        ("Q4_0", 4, 32, torch.float16), ("Q4_1", 4, 32, torch.float16), ("Q8_0", 8, 32, torch.float16),
        ("Q5_1", 8, 32, torch.float16), ("Q4_K", 4, 32, torch.float32), ("Q5_K", 8, 32, torch.float32),
        ("Q6_K", 8, 16, torch.float32), ("Q2_K", 8, 16, torch.float32), ("Q3_K", 8, 16, torch.float32),
    ],
)  # fmt: skip
def test_each_kind_is_held_in_its_bits_and_groups(name: str, bits: int, group: int, scale: torch.dtype):
    held = quantized_from_blocks(random_rows(name), Quantization[name])
    assert (held.bits, held.group, held.scales.dtype, held.mins.dtype) == (bits, group, scale, scale)


@pytest.mark.parametrize("name", FACTORS)
def test_a_scale_that_is_not_finite_gives_weights_that_are_not(name: str):
    rows = random_rows(name)
    at = FACTORS[name][0]
    rows[0, at : at + 2] = np.array([np.nan], dtype=np.float16).view(np.uint8)
    values = quantized_from_blocks(rows, Quantization[name]).dequantize()
    assert values[0].isnan().any()
    assert values[1:].isfinite().all()
