"""Words and word n-grams as 64-bit hashes: what near-duplicates and decontamination compare.

Entry points: `words`, `WordHashes` and `ngram_hashes`. A word is a run of letters and digits, without regard
to case and compatibility forms (NFKC, case-folded); punctuation, blanks and underscores only separate words.
Hashes are the same in every process and version: blake2b of the word, combined by fixed multipliers.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Hashes: TypeAlias = npt.NDArray[np.uint64]

_WORD = re.compile(r"[^\W_]+")
_MAX_REMEMBERED_WORDS = 1 << 20  # about 150 MB
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))


def words(text: str) -> list[str]:
    """Return the normalised words of a text, in order."""
    return [_normal(word) for word in _WORD.findall(text)]


class WordHashes:
    """Hashes the words of texts, and remembers those met: most words of a text are old acquaintances."""

    def __init__(self) -> None:
        self._known = _Known()

    def __call__(self, text: str) -> Hashes:
        """Return one hash per word of `text`, in order, uint64."""
        if len(self._known) > _MAX_REMEMBERED_WORDS:
            self._known.clear()
        return np.fromiter(map(self._known.__getitem__, _WORD.findall(text)), np.uint64)


def ngram_hashes(word_hashes: Hashes, n: int) -> Hashes:
    """Return the hash of every run of `n` words, in order; empty if there are fewer than `n`."""
    count = len(word_hashes) - n + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    combined = np.zeros(count, np.uint64)
    for place, multiplier in enumerate(random_hashes(n, seed=n) | np.uint64(1)):
        combined += word_hashes[place : place + count] * multiplier
    return mix(combined)


def mix(values: Hashes) -> Hashes:
    """Return each value with its bits mixed: the finaliser of splitmix64 (Steele, Lea, Flood 2014)."""
    mixed = values.copy()
    for shift, multiplier in _MIX:
        mixed ^= mixed >> shift
        mixed *= multiplier
    mixed ^= mixed >> np.uint64(31)
    return mixed


def random_hashes(count: int, *, seed: int) -> Hashes:
    """Return `count` numbers that look random: splitmix64, the same for ever (numpy's streams are not)."""
    steps = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
    return mix(steps + mix(np.array([seed], np.uint64) + _GOLDEN))


class _Known(dict[str, int]):
    """Word as it stands in the text -> hash of its normal form."""

    def __missing__(self, word: str) -> int:
        digest = hashlib.blake2b(_normal(word).encode(), digest_size=8).digest()
        value = self[word] = int.from_bytes(digest, "little")
        return value


def _normal(word: str) -> str:
    return unicodedata.normalize("NFKC", word).casefold()
