"""A linear classifier of texts in numpy: hashed words and pairs of words, logistic regression.

Entry points: `Features`, `fit`, `LinearModel`. A text becomes the directions of its words, scaled to length
one, so that a long text is no stronger evidence than a short one. Training is AdaGrad (Duchi et al. 2011) in
a fixed order; the same data gives the same weights. Weights are stored as safetensors, never as pickle.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from criadero import files
from criadero.corpus.shingles import WordHashes, ngram_hashes, random_hashes
from criadero.errors import DataError

Floats: TypeAlias = npt.NDArray[np.float32]
Places: TypeAlias = npt.NDArray[np.int32]
Vector: TypeAlias = tuple[Places, Floats]
"""Which weights a text uses, and how much of each; the squares sum to 1."""

_BATCH_TEXTS = 256
_LEARNING_RATE = 0.5
_L2 = 1e-6
_EPSILON = 1e-8


class Features:
    """Text to vector; remembers the hashes of words."""

    def __init__(self, *, bits: int, pairs: bool) -> None:
        self._mask = np.uint64((1 << bits) - 1)
        self._pairs = pairs
        self._hash = WordHashes()

    def __call__(self, text: str) -> Vector:
        words = self._hash(text)
        hashes = np.concatenate([words, ngram_hashes(words, 2)]) if self._pairs else words
        places, counts = np.unique(hashes & self._mask, return_counts=True)
        # A word that is there ten times says a little more than one that is there once.
        values = np.log1p(counts).astype(np.float32)
        length = float(np.sqrt(np.sum(values * values, dtype=np.float64)))
        return places.astype(np.int32), values / np.float32(length or 1.0)


@dataclass(frozen=True)
class LinearModel:
    """Weights and what they mean.

    Attributes:
        weights: float32, 2 ** bits.
        bias: is added to every score.
        pairs: whether pairs of neighbouring words count as words.
    """

    weights: Floats
    bias: float
    pairs: bool

    @property
    def bits(self) -> int:
        return len(self.weights).bit_length() - 1

    def features(self) -> Features:
        """Return what makes vectors for this model."""
        return Features(bits=self.bits, pairs=self.pairs)

    def probability(self, vector: Vector) -> float:
        """Return how likely a text with this vector is of the positive class."""
        places, values = vector
        score = float(np.dot(self.weights[places].astype(np.float64), values)) + self.bias
        return float(1.0 / (1.0 + np.exp(-score)))

    def save(self, path: Path) -> None:
        """Write the weights."""
        tensors = {
            "weights": self.weights,
            "bias": np.array([self.bias], np.float64),
            "pairs": np.array([self.pairs], np.uint8),
        }
        with files.atomic_write(path) as stream:
            stream.write(save(tensors, metadata={"format": "1"}))


def load(path: Path) -> LinearModel:
    """Read a model.

    Raises:
        DataError: the file is missing or is no such model.
    """
    try:
        tensors = load_file(path)
        weights, bias, pairs = tensors["weights"], tensors["bias"], tensors["pairs"]
        size = len(weights)
        if weights.dtype != np.float32 or weights.ndim != 1 or size & (size - 1) or not size:
            raise ValueError(f"weights are {weights.dtype} of shape {weights.shape}")
        return LinearModel(weights, float(bias[0]), bool(pairs[0]))
    except (OSError, SafetensorError, KeyError, IndexError, ValueError) as problem:
        raise DataError(f"`{path}` is no classifier: {problem}") from None


def fit(
    vectors: Sequence[Vector], labels: Sequence[bool], *, bits: int, pairs: bool, epochs: int, seed: int
) -> LinearModel:
    """Train on vectors made by `Features` with the same `bits` and `pairs`.

    Args:
        vectors: of the texts.
        labels: whether each is of the positive class.
        bits: there are 2 ** bits weights.
        pairs: as in `Features`.
        epochs: times each text is seen.
        seed: of the order they are seen in.
    """
    weights, squares = np.zeros(1 << bits, np.float32), np.full(1 << bits, _EPSILON, np.float32)
    bias, bias_squares = 0.0, _EPSILON
    truth = np.asarray(labels, np.float32)
    for epoch in range(epochs):
        order = np.argsort(random_hashes(len(vectors), seed=seed + epoch), kind="stable")
        for start in range(0, len(order), _BATCH_TEXTS):
            batch = order[start : start + _BATCH_TEXTS]
            places, values, texts = _rows([vectors[i] for i in batch])
            scores = np.bincount(texts, values * weights[places], minlength=len(batch)) + bias
            errors = (1.0 / (1.0 + np.exp(-scores)) - truth[batch]) / len(batch)
            used, inverse = np.unique(places, return_inverse=True)
            gradient = np.bincount(inverse, values * errors[texts]) + _L2 * weights[used]
            squares[used] += (gradient * gradient).astype(np.float32)
            weights[used] -= (_LEARNING_RATE * gradient / np.sqrt(squares[used])).astype(np.float32)
            step = float(errors.sum())
            bias_squares += step * step
            bias -= _LEARNING_RATE * step / bias_squares**0.5
    return LinearModel(weights, bias, pairs)


def _rows(vectors: Iterable[Vector]) -> tuple[Places, Floats, npt.NDArray[np.int64]]:
    """Lay vectors end to end: places, values, and the number of the vector each is of."""
    pairs = list(vectors)
    lengths = [len(places) for places, _ in pairs]
    numbers = np.repeat(np.arange(len(pairs)), lengths)
    return np.concatenate([p for p, _ in pairs]), np.concatenate([v for _, v in pairs]), numbers
