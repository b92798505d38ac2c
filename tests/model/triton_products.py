"""Products by Triton's kernel in Triton's interpreter, as JSON: a program, for it has to begin before Triton.

Each is [bits, group, shape, vectors, dtype, difference in root mean square].
"""

from __future__ import annotations

import itertools
import json

import torch

from criadero.model.quantized import quantize
from criadero.model.quantized_triton import MOST_VECTORS, linear

SHAPES = ((1, 64), (37, 192), (64, 1088))


def difference(bits: int, group: int, shape: tuple[int, int], vectors: int, dtype: torch.dtype) -> float:
    torch.manual_seed(vectors)
    weight = quantize(torch.randn(shape), bits=bits, group=group)
    x = torch.randn(vectors, shape[1]).to(dtype)
    found = linear(x, weight.codes, weight.scales, weight.mins, bits)
    assert found.dtype == dtype
    torch.library.opcheck(
        linear, (x, weight.codes, weight.scales, weight.mins, bits), test_utils="test_faketensor"
    )
    expected = x.double() @ weight.dequantize().double().T
    return ((found - expected).square().mean() / expected.square().mean()).sqrt().item()


kinds = [(dtype, n) for dtype in (torch.float32, torch.float16) for n in (1, 2, 17, MOST_VECTORS)]
# Several vectors in bfloat16 are beyond the interpreter, whose dot products take its bits for integers.
kinds.append((torch.bfloat16, 1))
found = [
    [bits, group, shape, vectors, str(dtype), difference(bits, group, shape, vectors, dtype)]
    for bits, group, shape, (dtype, vectors) in itertools.product((4, 8), (16, 32, 64), SHAPES, kinds)
]
print(json.dumps(found))
