"""Cutoffs: percentiles of one's own pages, a table for CCNet's models, a file that must be there."""

from __future__ import annotations

import json
import logging

import pytest

from criadero import notices
from criadero.corpus.quality.cutoffs import Cutoffs, calibrate, load, of_ccnet
from criadero.errors import DataError


def test_calibration_parts_pages_30_30_40():
    values = [float(v) for v in range(1, 1001)]
    found = calibrate(values, pages="test")
    buckets = [found.bucket(v) for v in values]
    assert [buckets.count(b) for b in ("head", "middle", "tail")] == [300, 300, 400]
    assert found.documents == 1000


def test_bounds_belong_to_the_next_bucket():
    cutoffs = Cutoffs(340, 520, 0, "")
    assert [cutoffs.bucket(v) for v in (339.9, 340, 519.9, 520)] == ["head", "middle", "middle", "tail"]


def test_cutoffs_are_read_as_they_were_written(tmp_path):
    cutoffs = Cutoffs(1.5, 2.5, 7, "seven pages")
    cutoffs.save(tmp_path)
    assert load(tmp_path) == cutoffs


def test_a_model_without_cutoffs_of_its_own_is_refused(tmp_path):
    """CCNet's table holds for the models published with it; recreations use it with others."""
    with pytest.raises(DataError, match="cutoffs of its own") as caught:
        load(tmp_path)
    assert "calibrate" in str(caught.value)


@pytest.mark.parametrize(
    "written",
    [
        [],
        {},
        {"format": 2, "head": 1, "middle": 2, "documents": 1, "pages": ""},
        {"format": 1, "head": 3, "middle": 2, "documents": 1, "pages": ""},
        {"format": 1, "head": "a", "middle": 2, "documents": 1, "pages": ""},
        {"format": 1, "head": 1, "middle": float("inf"), "documents": 1, "pages": ""},
    ],
)
def test_damaged_cutoffs_are_refused(tmp_path, written):
    (tmp_path / "cutoffs.json").write_text(json.dumps(written))
    with pytest.raises(DataError, match="holds no cutoffs"):
        load(tmp_path)


def test_the_table_of_ccnet_comes_with_a_warning(caplog, monkeypatch):
    monkeypatch.setattr(notices, "_said", set())
    with caplog.at_level(logging.WARNING, logger="criadero"):
        found = of_ccnet("en")
    assert (found.head, found.middle) == (340, 520)
    assert "only for the language model published with it" in caplog.text
    with pytest.raises(DataError, match="no cutoffs for `sl`"):
        of_ccnet("sl")


@pytest.mark.parametrize("values", [[], [1.0, float("inf")], [float("nan")]])
def test_cutoffs_need_finite_perplexities(values):
    with pytest.raises(DataError, match="cannot be computed"):
        calibrate(values, pages="test")
