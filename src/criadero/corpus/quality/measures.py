"""How well probabilities tell two classes apart and mean what they say.

Entry points: `auc` and `reliability`; plain functions of scores and true classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_BINS = 10


@dataclass(frozen=True)
class Bin:
    """Texts scored from `low` up to `high`: how many, their mean score, the share that is positive."""

    low: float
    high: float
    texts: int
    mean_score: float
    share_positive: float


def auc(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """Return how likely a positive scores above a negative, ties counting half.

    Raises:
        ValueError: one of the classes is empty.
    """
    values, truth = np.asarray(scores, np.float64), np.asarray(labels, np.bool_)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        raise ValueError("both classes are needed")
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    # The rank of tied values is the middle of those they take.
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    wins = ranks[truth].sum() - positives * (positives + 1) / 2
    return float(wins / (positives * negatives))


def reliability(scores: Sequence[float], labels: Sequence[bool]) -> tuple[Bin, ...]:
    """Return what a reliability diagram shows: ten bins of equal width, empty ones left out."""
    values, truth = np.asarray(scores, np.float64), np.asarray(labels, np.bool_)
    numbers = np.minimum((values * _BINS).astype(np.int64), _BINS - 1)
    found = []
    for number in np.unique(numbers):
        inside = numbers == number
        found.append(
            Bin(
                low=float(number / _BINS),
                high=float((number + 1) / _BINS),
                texts=int(inside.sum()),
                mean_score=float(values[inside].mean()),
                share_positive=float(truth[inside].mean()),
            )
        )
    return tuple(found)


def calibration_error(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error (Guo et al. 2017, eq. 3): mean gap of score and share."""
    total = sum(b.texts for b in bins)
    return sum(b.texts * abs(b.mean_score - b.share_positive) for b in bins) / total
