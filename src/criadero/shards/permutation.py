"""A shuffle that needs no memory: a keyed bijection of 0 .. n-1, evaluated anywhere at once.

`permute` is a Feistel network on the smallest even number of bits that holds n; a value that lands outside
0 .. n-1 is encrypted again until it lands inside (cycle walking), at most four times on average.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]

_ROUNDS = 6
_GOLDEN = 0x9E3779B97F4A7C15


def permute(indices: Int64s, sizes: Int64s, keys: UInt64s) -> Int64s:
    """Return where each index goes in the permutation of 0 .. size-1 that its key names.

    Args:
        indices, sizes, keys: of one shape (N,); 0 <= index < size <= 2**62. A key is one permutation.
    """
    half_bits = np.array([(int(size - 1).bit_length() + 1) // 2 for size in sizes.tolist()], dtype=np.uint64)
    out = indices.astype(np.uint64)
    walking = np.flatnonzero(sizes > 1)
    while walking.size:
        out[walking] = _encrypt(out[walking], half_bits[walking], keys[walking])
        walking = walking[out[walking] >= sizes[walking].astype(np.uint64)]
    return out.astype(np.int64)


def _encrypt(values: UInt64s, half_bits: UInt64s, keys: UInt64s) -> UInt64s:
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    left, right = values >> half_bits, values & mask
    for number in range(1, _ROUNDS + 1):
        round_key = keys + np.uint64(_GOLDEN * number % 2**64)
        left, right = right, left ^ (mix64(right ^ mix64(round_key)) & mask)
    return (left << half_bits) | right


def mix64(values: UInt64s) -> UInt64s:
    """Return the splitmix64 finalizer of each value: every input bit changes about half the output bits."""
    values = values + np.uint64(_GOLDEN)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
