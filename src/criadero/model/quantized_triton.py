"""Few vectors times a quantised matrix on a GPU: every weight is read once, as the code that it is.

Entry point: `linear`. torch alone would write the dequantised matrix to memory and read it again, which takes
longer than a float matrix would. Letters: M vectors, I columns, O rows.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST_VECTORS = 64
"""With more of them the arithmetic counts, and torch's products of a dequantised matrix are quicker."""

# Rows and bytes of codes that a program takes at once. A dot product needs 16 vectors or more.
_ONE_VECTOR = {"ROWS": 8, "BYTES": 256}
_SOME_VECTORS = {"ROWS": 32, "BYTES": 64}
_LEAST_VECTORS_OF_A_DOT = 16


@triton.jit
def _loaded(values, rows, columns, rows_end, columns_end):  # type: ignore[no-untyped-def]
    """Read the elements of a matrix where each of `rows` meets each of `columns`; zeros outside of it."""
    inside = (rows < rows_end)[:, None] & (columns < columns_end)[None, :]
    return tl.load(values + rows[:, None] * columns_end + columns[None, :], mask=inside, other=0)


@triton.jit  # type: ignore[untyped-decorator]
def _kernel(  # type: ignore[no-untyped-def]
    x_ptr, codes_ptr, scales_ptr, mins_ptr, out_ptr, num_vectors, num_rows, num_columns,
    BITS: tl.constexpr, GROUP: tl.constexpr, VECTORS: tl.constexpr, ROWS: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    """Make ROWS rows of the product with VECTORS vectors."""
    each: tl.constexpr = 8 // BITS  # codes in a byte
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    vectors = tl.program_id(1).to(tl.int64) * VECTORS + tl.arange(0, VECTORS)
    row_bytes, groups = num_columns // each, num_columns // GROUP
    total = tl.zeros((ROWS, BYTES) if VECTORS == 1 else (VECTORS, ROWS), tl.float32)
    for start in range(0, row_bytes, BYTES):
        bytes_ = start + tl.arange(0, BYTES)
        codes = _loaded(codes_ptr, rows, bytes_, num_rows, row_bytes)
        of_group = bytes_ * each // GROUP
        scales = _loaded(scales_ptr, rows, of_group, num_rows, groups).to(tl.float32)
        mins = _loaded(mins_ptr, rows, of_group, num_rows, groups).to(tl.float32)
        for part in tl.static_range(each):
            code = (codes >> (part * BITS)) & (2**BITS - 1)
            weights = code.to(tl.float32) * scales + mins
            x = _loaded(x_ptr, vectors, bytes_ * each + part, num_vectors, num_columns)
            if VECTORS == 1:
                total += weights * x.to(tl.float32)
            else:
                total = tl.dot(x, tl.trans(weights.to(x.dtype)), total, input_precision="ieee")
    place = out_ptr + vectors[:, None] * num_rows + rows[None, :]
    inside = (vectors < num_vectors)[:, None] & (rows < num_rows)[None, :]
    if VECTORS == 1:
        tl.store(place, tl.sum(total, axis=1)[None, :].to(out_ptr.dtype.element_ty), mask=inside)
    else:
        tl.store(place, total.to(out_ptr.dtype.element_ty), mask=inside)


@torch.library.custom_op("criadero::quantized_linear", mutates_args=())
def linear(x_MI: Tensor, codes: Tensor, scales: Tensor, mins: Tensor, bits: int) -> Tensor:
    """Return x times the transposed matrix, (M, O), in the dtype of x; sums are float32.

    Args:
        x_MI: float16, bfloat16 or float32.
        codes, scales, mins: as `QuantizedTensor` has them.
        bits: 4 or 8.
    """
    (num_vectors, num_columns), num_rows = x_MI.shape, codes.shape[0]
    out_MO = x_MI.new_empty(num_vectors, num_rows)
    if num_vectors == 1:
        vectors, sizes = 1, _ONE_VECTOR
    else:
        vectors, sizes = max(_LEAST_VECTORS_OF_A_DOT, triton.next_power_of_2(num_vectors)), _SOME_VECTORS
    grid = (triton.cdiv(num_rows, sizes["ROWS"]), triton.cdiv(num_vectors, vectors))
    _kernel[grid](
        x_MI.contiguous(), codes.contiguous(), scales.contiguous(), mins.contiguous(), out_MO,
        num_vectors, num_rows, num_columns,
        BITS=bits, GROUP=num_columns // scales.shape[1], VECTORS=vectors, **sizes,
    )  # fmt: skip
    return out_MO


@linear.register_fake
def _(x_MI: Tensor, codes: Tensor, *_: object) -> Tensor:
    return x_MI.new_empty(x_MI.shape[0], codes.shape[0])
