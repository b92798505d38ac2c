"""Blocks of GGUF files turned into quantised matrices without loss.

Entry point: `quantized_from_blocks`; `HELD` lists the kinds. Every kind comes down to scale * code + minimum
over 16 or 32 columns, and dequantises to the float32 numbers that the `gguf` library gives, bit for bit but
for the sign of zero. Layouts: `block_*` in https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from criadero.model.quantized import QuantizedTensor

Array = npt.NDArray[Any]
# Codes (N, columns of a block), scales and minimums (N, groups of a block) of N blocks (N, bytes).
_Parts = tuple[Array, Array, Array]
_LARGEST_FLOAT16 = 65504.0


def quantized_from_blocks(rows: Array, kind: GGMLQuantizationType) -> QuantizedTensor:
    """Turn the blocks of a matrix into a QuantizedTensor (O, I), on the CPU.

    Args:
        rows: uint8, (O, bytes of a row), as in the file.
        kind: one of HELD.
    """
    block_columns, block_bytes = GGML_QUANT_SIZES[kind]
    columns = rows.shape[1] // block_bytes * block_columns
    bits, read = HELD[kind]
    with np.errstate(all="ignore"):  # a scale that is not finite gives weights that are not
        codes, scales, mins = read(rows.reshape(-1, block_bytes))
    group = block_columns // scales.shape[1]
    codes = codes.reshape(len(rows), columns)
    if bits == 4:
        codes = codes[:, 0::2] | (codes[:, 1::2] << 4)
    parts = (codes, _compact(scales, kind), _compact(mins, kind))
    tensors = [torch.from_numpy(np.ascontiguousarray(part).reshape(len(rows), -1)) for part in parts]
    return QuantizedTensor(tensors[0], tensors[1], tensors[2], bits=bits, group=group)


def _compact(numbers: Array, kind: GGMLQuantizationType) -> Array:
    """Keep in float16 what is exact there: float16 itself and its multiples by powers of two."""
    if kind in _PRODUCTS or not (np.abs(numbers) <= _LARGEST_FLOAT16).all():
        return numbers
    return numbers.astype(np.float16)


def _float16(blocks: Array, at: int) -> Array:
    """Return the float16 number at a byte of each block, as float32 (N, 1)."""
    found: Array = np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16).astype(np.float32)
    return found


def _symmetric(codes: Array, scales: Array, *, zero: int) -> _Parts:
    return codes, scales, scales * np.float32(-zero)


def _fields(packed: Array, *, bits: int, run: int) -> Array:
    """Unpack fields of `bits`: each run of bytes gives its lowest fields, then the ones above."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8).reshape(1, 1, -1, 1)
    fields = (packed.reshape(len(packed), -1, 1, run) >> shifts) & np.uint8(2**bits - 1)
    unpacked: Array = fields.reshape(len(packed), -1)
    return unpacked


def _q4_0(blocks: Array) -> _Parts:
    return _symmetric(_fields(blocks[:, 2:], bits=4, run=16), _float16(blocks, 0), zero=8)


def _q4_1(blocks: Array) -> _Parts:
    return _fields(blocks[:, 4:], bits=4, run=16), _float16(blocks, 0), _float16(blocks, 2)


def _fifth_bits(packed: Array) -> Array:
    return np.unpackbits(packed, axis=1, bitorder="little") << 4


def _q5_0(blocks: Array) -> _Parts:
    codes = _fields(blocks[:, 6:], bits=4, run=16) | _fifth_bits(blocks[:, 2:6])
    return _symmetric(codes, _float16(blocks, 0), zero=16)


def _q5_1(blocks: Array) -> _Parts:
    codes = _fields(blocks[:, 8:], bits=4, run=16) | _fifth_bits(blocks[:, 4:8])
    return codes, _float16(blocks, 0), _float16(blocks, 2)


def _q8_0(blocks: Array) -> _Parts:
    return _symmetric(blocks[:, 2:] ^ np.uint8(0x80), _float16(blocks, 0), zero=128)


def _q2_k(blocks: Array) -> _Parts:
    codes, packed = _fields(blocks[:, 16:80], bits=2, run=32), blocks[:, :16]
    return codes, _float16(blocks, 80) * (packed & 15), -(_float16(blocks, 82) * (packed >> 4))


def _q3_k(blocks: Array) -> _Parts:
    low = _fields(blocks[:, 32:96], bits=2, run=32)
    codes = low | (_fields(blocks[:, :32], bits=1, run=32) << 2)
    scales = _fields(blocks[:, 96:104], bits=4, run=8) | (_fields(blocks[:, 104:108], bits=2, run=4) << 4)
    return _symmetric(codes, _float16(blocks, 108) * (scales.astype(np.float32) - 32), zero=4)


def _scales_and_mins(blocks: Array) -> tuple[Array, Array]:
    """Return the products of both 6-bit tables of Q4_K and Q5_K with their float16 factors, (N, 8) each."""
    first, second, third = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = np.concatenate([first & 63, (third & 15) | ((first >> 2) & 48)], axis=1)
    mins = np.concatenate([second & 63, (third >> 4) | ((second >> 2) & 48)], axis=1)
    return _float16(blocks, 0) * scales, -(_float16(blocks, 2) * mins)


def _q4_k(blocks: Array) -> _Parts:
    return _fields(blocks[:, 16:], bits=4, run=32), *_scales_and_mins(blocks)


def _q5_k(blocks: Array) -> _Parts:
    high = _fields(blocks[:, 16:48], bits=1, run=32)
    return _fields(blocks[:, 48:], bits=4, run=32) | (high << 4), *_scales_and_mins(blocks)


def _q6_k(blocks: Array) -> _Parts:
    codes = _fields(blocks[:, :128], bits=4, run=64) | (_fields(blocks[:, 128:192], bits=2, run=32) << 4)
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8)
    return _symmetric(codes, _float16(blocks, 208) * scales.astype(np.float32), zero=32)


_PRODUCTS = (
    GGMLQuantizationType.Q2_K,
    GGMLQuantizationType.Q3_K,
    GGMLQuantizationType.Q4_K,
    GGMLQuantizationType.Q5_K,
    GGMLQuantizationType.Q6_K,
)
# The kinds that are held as they are, and the bits their codes take in memory.
HELD: Mapping[GGMLQuantizationType, tuple[int, Callable[[Array], _Parts]]] = {
    GGMLQuantizationType.Q4_0: (4, _q4_0),
    GGMLQuantizationType.Q4_1: (4, _q4_1),
    GGMLQuantizationType.Q5_0: (8, _q5_0),
    GGMLQuantizationType.Q5_1: (8, _q5_1),
    GGMLQuantizationType.Q8_0: (8, _q8_0),
    GGMLQuantizationType.Q2_K: (8, _q2_k),
    GGMLQuantizationType.Q3_K: (8, _q3_k),
    GGMLQuantizationType.Q4_K: (4, _q4_k),
    GGMLQuantizationType.Q5_K: (8, _q5_k),
    GGMLQuantizationType.Q6_K: (8, _q6_k),
}
