"""A rank that stands still in a real run: all end, the report in the run folder names it, the run goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from criadero.runs import HANG_REPORT, summarise
from faults.outcome import outcome_of
from faults.program import run, run_on_ranks
from tiny_run import TinyRun

pytestmark = pytest.mark.xdist_group("ranks")


def test_a_loader_that_hangs_is_found_by_its_own_thread_and_the_run_can_go_on(tiny: TinyRun, tmp_path: Path):
    config = tiny.config(tmp_path, steps=8)
    plan = {"sleep_before_step": {"step": 7, "rank": 1}}
    command = ("train", config, "train.timeout_seconds=6", "heldout.every_steps=0")
    first, second = run_on_ranks(2, *command, folder=tmp_path, plan=plan)
    assert (first.code, second.code) == (1, 1)
    assert "error: rank 0 lost contact: rank 1 (" in first.err
    assert "hangs in data for" in first.err
    assert "rank 1 is ended by its watchdog" in second.err
    report = (tmp_path / "run" / HANG_REPORT).read_text()
    of_rank_1 = report.split("=== rank 1")[1].split("=== rank 0")[0]
    assert "MainThread:" in of_rank_1
    assert "criadero-loader:" in of_rank_1  # the main thread only waits for it
    assert "time.sleep(3600)" in of_rank_1
    assert "last collective finished: " in report
    assert summarise(tmp_path / "run").state == "failed"
    assert run("train", config, "heldout.every_steps=0", folder=tmp_path).code == 0
    assert [row[0] for row in outcome_of(tmp_path / "run").curve] == list(range(1, 9))
