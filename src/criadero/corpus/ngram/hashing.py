"""One 64-bit number for an n-gram, computed word by word from its last word backwards.

Model files are built and asked with the same two functions, `first` and `extend`. Two different n-grams of a
file never share a number (the builder chooses another seed otherwise); an n-gram that is not in a file
of M n-grams is taken for one that is with odds of M in 2**64, one in 18 billion for a billion n-grams.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]

# Odd constants of good multiplicative hashes: 2**64 / golden ratio, and the finalizer of MurmurHash3.
_WORD = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xFF51AFD7ED558CCD)
_SHIFT = np.uint64(32)
EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
"""The number of an empty place in a table; with 0 no number of an n-gram."""


def first(words: NDArray[Any], seed: int) -> U64:
    """Return the numbers of single words by id."""
    return extend(np.full(words.shape, _mixed_seed(seed)), words)


def extend(numbers: U64, words: NDArray[Any]) -> U64:
    """Return the numbers of n-grams with one more word before them."""
    mixed = (words.astype(np.uint64) + np.uint64(1)) * _WORD
    mixed ^= numbers
    mixed *= _MIX
    mixed ^= mixed >> _SHIFT
    mixed *= _WORD
    mixed ^= mixed >> _SHIFT
    return mixed


def homes(numbers: U64, capacity: int) -> NDArray[np.int64]:
    """Return where in a table of `capacity` < 2**32 places each number belongs; ascending with the number."""
    places: NDArray[np.int64] = (((numbers >> _SHIFT) * np.uint64(capacity)) >> _SHIFT).astype(np.int64)
    return places


def _mixed_seed(seed: int) -> np.uint64:
    return np.uint64((seed * 0xD6E8FEB86659FD93 + 0x2545F4914F6CDD1D) % 2**64)
