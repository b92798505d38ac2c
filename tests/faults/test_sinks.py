"""A place that receives metrics may fail at every call: the run does not care, and says it once."""

from __future__ import annotations

from pathlib import Path

import pytest

from criadero import sinks
from criadero.runs import METRICS, read_metrics
from criadero.train.loop import train
from tiny_run import TinyRun


class Broken:
    calls = 0

    def __init__(self, folder: Path) -> None:
        pass

    def write(self, step: int, values: object) -> None:
        Broken.calls += 1
        raise RuntimeError("nobody listens")

    def close(self) -> None:
        raise RuntimeError("nobody listens")


def test_a_sink_that_raises_each_time_does_not_hurt(
    tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setitem(sinks._SINKS, "broken", Broken)
    result = train(tiny.run_config(tmp_path, 'run.sinks=["broken"]', steps=4))
    assert result.state.step == 4
    assert [row["step"] for row in read_metrics(tmp_path / "run" / METRICS) if "loss" in row] == [1, 2, 3, 4]
    assert caplog.text.count("metrics sink `broken` failed") == 1
    assert Broken.calls == 1
