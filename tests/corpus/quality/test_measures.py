"""AUC and reliability by hand and by brute force."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criadero.corpus.quality.measures import auc, calibration_error, reliability

SCORED = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), st.booleans()), max_size=30)


@given(SCORED)
def test_auc_counts_pairs(scored):
    positives = [s for s, label in scored if label]
    negatives = [s for s, label in scored if not label]
    scores, labels = [s for s, _ in scored], [label for _, label in scored]
    if not positives or not negatives:
        with pytest.raises(ValueError, match="both classes"):
            auc(scores, labels)
        return
    wins = sum((p > n) + (p == n) / 2 for p in positives for n in negatives)
    assert auc(scores, labels) == pytest.approx(wins / len(positives) / len(negatives))


def test_reliability_by_hand():
    bins = reliability([0.05, 0.15, 0.95, 1.0, 0.91], [False, True, True, True, False])
    assert [(b.low, b.high, b.texts) for b in bins] == [(0.0, 0.1, 1), (0.1, 0.2, 1), (0.9, 1.0, 3)]
    assert bins[2].share_positive == pytest.approx(2 / 3)
    expected = (0.05 + 0.85 + 3 * abs((0.95 + 1.0 + 0.91) / 3 - 2 / 3)) / 5
    assert calibration_error(bins) == pytest.approx(expected)
