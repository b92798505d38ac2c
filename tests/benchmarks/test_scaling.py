"""The benchmark of ranks: layouts agree on losses and on what they send, or it fails."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")
sys.path.insert(0, BENCHMARKS)

import scaling  # noqa: E402

sys.path.remove(BENCHMARKS)  # its corpus.py would hide the folder of tests of that name


def result_of(capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capfd.readouterr().out.splitlines()[-1])
    return found


def stand_in(monkeypatch: pytest.MonkeyPatch, *, last_loss: float, calls_too_many: int = 0) -> None:
    """Put found figures in place of the ranks: those of the formula, with the given faults on two ranks."""

    def measure(model: str, layout: str, *, steps: int) -> list[dict[str, Any]]:
        counted = [dict(vars(part)) for part in scaling.formula(model, layout)]
        for part in counted:
            part["calls"] += calls_too_many
        ranks = scaling.num_ranks(layout)
        losses = [4.0, 3.0 if ranks == 1 else last_loss]
        return [{"losses": losses, "seconds": [0.5], "socket_bytes": 7, "counted": counted}] * ranks

    monkeypatch.setattr(scaling, "measure", measure)


@pytest.mark.slow
@pytest.mark.xdist_group("ranks")
def test_two_ranks_that_share_products_show_the_losses_of_one(capfd: pytest.CaptureFixture[str]):
    layouts = ["1 rank", "2 tensor parallel"]
    scaling.main(["--model", "toy", "--only", *layouts, "--rounds", "1", "--steps", "1"])
    found = result_of(capfd)
    assert found["loss_difference"] < scaling.LOSS_TOLERANCE
    shared = found["layouts"]["2 tensor parallel"]
    assert shared["counted"] == shared["formula"]
    # A ring is the least there is; what is more is gloo's all-reduce for reduce-scatter, and headers.
    assert all(shared["ring_bytes"] < sent < 2 * shared["ring_bytes"] for sent in shared["socket_bytes"])
    assert found["layouts"]["1 rank"]["socket_bytes"] == [0]


def test_a_loss_that_differs_too_much_fails(monkeypatch: pytest.MonkeyPatch, capfd: Any):
    stand_in(monkeypatch, last_loss=3.0 + 2 * scaling.LOSS_TOLERANCE)
    with pytest.raises(SystemExit, match="disagree"):
        scaling.main(["--only", "1 rank", "2 shards", "--rounds", "1"])
    assert result_of(capfd)["loss_difference"] == pytest.approx(2 * scaling.LOSS_TOLERANCE)


def test_a_collective_too_many_fails(monkeypatch: pytest.MonkeyPatch, capfd: Any):
    stand_in(monkeypatch, last_loss=3.0, calls_too_many=1)
    with pytest.raises(SystemExit, match="disagree"):
        scaling.main(["--only", "1 rank", "2 shards", "--rounds", "1"])
    assert not result_of(capfd)["layouts"]["2 shards"]["bytes_agree"]


def test_every_layout_cuts_the_batch_evenly_and_is_counted(monkeypatch: pytest.MonkeyPatch, capfd: Any):
    stand_in(monkeypatch, last_loss=3.0)
    scaling.main(["--rounds", "2"])
    found = result_of(capfd)
    assert {layout: one["ranks"] for layout, one in found["layouts"].items()} == {
        layout: 1 if layout == "1 rank" else 4 if layout[0] == "4" or "x 2" in layout else 2
        for layout in scaling.LAYOUTS
    }
    assert all(len(runs) == 2 for runs in found["runs"].values())
    for layout, parallel in scaling.LAYOUTS.items():
        assert scaling.BATCH_SEQUENCES % (parallel["dp_shard"] * parallel.get("dp_replicate", 1)) == 0, layout
