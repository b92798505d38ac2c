"""A profile of a real run: what is in the run folder, and that what goes wrong with it ends nothing."""

from __future__ import annotations

import errno
import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from criadero.errors import StoppedEarly
from criadero.runs import summarise
from criadero.train import profile as profile_module
from criadero.train.hooks import NoHook
from criadero.train.loop import train
from criadero.train.stop import StopFlag
from criadero.train.timeline import ATTENTION, DATA, EXPOSED, OTHER, PRODUCTS, SHARES, UPDATE, Mark
from faults.program import run_on_ranks
from tiny_run import STEP_TOKENS, TinyRun


def profile_of(run: Path) -> tuple[dict[str, Any], list[dict[str, Any]], str]:
    """The summary, rank 0's events, and the page."""
    folder = run / "profile"
    trace = json.loads(gzip.decompress((folder / "rank-00000.trace.json.gz").read_bytes()))
    summary = json.loads((folder / "summary.json").read_text())
    return (
        summary,
        [e for e in trace["traceEvents"] if e.get("ph") == "X"],
        (folder / "summary.md").read_text(),
    )


@pytest.fixture(scope="module")
def one_rank(tiny: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny.run_config(tmp_path_factory.mktemp("profile"), "profile=true", steps=9)
    train(config)
    return config.run.folder


@pytest.fixture(scope="module")
def two_ranks(tiny: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profile_of_two")
    command = ("train", tiny.config(folder, steps=7), "profile=true", "train.recompute=paper")
    for ended in run_on_ranks(2, *command, folder=folder):
        assert ended.code == 0, ended.err
    return folder / "run"


def test_three_steps_are_recorded_after_three_others(one_rank: Path):
    summary, events, page = profile_of(one_rank)
    assert (summary["first_step"], summary["steps"], summary["steps_before"]) == (4, 3, 3)
    names = [event["name"] for event in events]
    assert len([name for name in names if name.startswith("ProfilerStep#")]) == 3
    counts = {Mark.FORWARD: 6, Mark.BACKWARD: 6, Mark.CLIP: 3, Mark.OPTIMIZER: 3, Mark.DATA: 3, Mark.PAUSE: 3}
    assert {mark: names.count(mark) for mark in counts} == counts
    assert "steps 4 to 6" in page
    assert "Only" not in page
    found = sorted(path.name for path in (one_rank / "profile").iterdir())
    assert found == ["rank-00000.trace.json.gz", "summary.json", "summary.md"]


def test_the_shares_of_one_rank_are_those_of_a_training_step(one_rank: Path):
    summary, events, page = profile_of(one_rank)
    shares = summary["shares"]
    assert summary["format_version"] == 1
    assert tuple(shares) == SHARES
    assert sum(shares.values()) == pytest.approx(1)
    assert all(shares[kind] > 0 for kind in (PRODUCTS, ATTENTION, OTHER, UPDATE, DATA))
    # Sums of single numbers over the one rank are collectives too; weights and gradients meet nobody.
    collectives = [event["name"] for event in events if event["name"].startswith("gloo:")]
    assert set(collectives) <= {"gloo:all_reduce"}
    assert len(collectives) <= 5 * summary["steps"]
    assert summary["recomputed"] is None
    assert summary["tokens_per_second"] == pytest.approx(STEP_TOKENS / summary["step_seconds"])
    assert summary["mfu_6n"] is None
    assert "MFU unknown" in page
    names = [operator["name"] for operator in summary["operators"]]
    assert len(names) == 10
    assert "aten::mm" in names


@pytest.mark.xdist_group("ranks")
def test_every_rank_of_two_writes_a_trace_and_communication_and_recomputation_are_seen(two_ranks: Path):
    summary, events, page = profile_of(two_ranks)
    found = sorted(path.name for path in (two_ranks / "profile").iterdir())
    assert found == [*(f"rank-0000{rank}.trace.json.gz" for rank in (0, 1)), "summary.json", "summary.md"]
    assert sum(summary["shares"].values()) == pytest.approx(1)
    assert summary["shares"][EXPOSED] > 0
    assert summary["hidden_communication"] > 0
    assert summary["ranks"] == 2
    assert 0 < summary["recomputed"] < 0.5
    assert "Recomputation in the backward pass took" in page
    assert {"gloo:all_gather", "gloo:all_reduce"} <= {event["name"] for event in events}


def test_a_short_run_is_recorded_as_far_as_it_goes_and_the_page_says_so(tiny: TinyRun, tmp_path: Path):
    config = tiny.run_config(tmp_path, "profile=true", steps=2)
    train(config)
    summary, _, page = profile_of(config.run.folder)
    assert (summary["first_step"], summary["steps"], summary["steps_before"]) == (1, 2, 0)
    assert "Only 2 steps, after 0 that were not recorded" in page


class StopAfter(NoHook):
    """Asks for the end of the run after a step."""

    def __init__(self, stop: StopFlag, step: int) -> None:
        self.stop, self.step = stop, step

    def before_step(self, model: object, state: Any) -> None:
        if state.step + 1 == self.step:
            self.stop.requested = True


def test_a_stopped_run_has_the_profile_of_its_last_steps_and_records_again_when_it_goes_on(
    tiny: TinyRun, tmp_path: Path
):
    config = tiny.run_config(tmp_path, "profile=true", steps=11)
    stop = StopFlag()
    with pytest.raises(StoppedEarly):
        train(config, stop=stop, hooks=[StopAfter(stop, 5)])
    summary, _, _ = profile_of(config.run.folder)
    assert (summary["first_step"], summary["steps"]) == (4, 2)
    train(config)
    summary, _, _ = profile_of(config.run.folder)
    assert (summary["first_step"], summary["steps"]) == (9, 3)


def test_a_full_disk_costs_the_profile_and_not_the_run(
    tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(profile_module, "_write_trace", full)
    config = tiny.run_config(tmp_path, "profile=true", steps=4)
    with caplog.at_level(logging.WARNING, "criadero"):
        train(config)
    assert "cannot be written: No space left on device; training goes on" in caplog.text
    assert summarise(config.run.folder).state == "finished"
    assert list((config.run.folder / "profile").iterdir()) == []


class CutShort:
    """What a profiler leaves on a disk that fills while it writes."""

    def export_chrome_trace(self, path: str) -> None:
        Path(path).write_text('{"traceEvents": [{"ph": "X"')


def test_a_trace_that_is_not_whole_is_no_trace(tmp_path: Path):
    with pytest.raises(ValueError, match="not whole"):
        profile_module._write_trace(CutShort(), tmp_path / "rank-00000.trace.json.gz")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_not_profiled_has_no_profile(tiny: TinyRun, tmp_path: Path):
    config = tiny.run_config(tmp_path, steps=1)
    train(config)
    assert not (config.run.folder / "profile").exists()
