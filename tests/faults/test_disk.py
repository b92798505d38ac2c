"""A disk that is full or closed to us, and a folder that somebody else is writing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from criadero.checkpoint.manifest import steps_in
from criadero.runs import RunLock, summarise
from faults.outcome import Outcome, assert_same, leftovers, outcome_of
from faults.program import run, start
from tiny_run import TinyRun

pytestmark = pytest.mark.xdist_group("disk")


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(tiny: TinyRun, tmp_path: Path, uncut: Outcome):
    plan = {"fill_disk": {"saves": [2, 3]}}
    ended = run("train", tiny.config(tmp_path), folder=tmp_path, plan=plan)
    assert ended.code == 0, ended.err
    warnings = [line for line in ended.err.splitlines() if line.startswith("warning: the checkpoint")]
    assert len(warnings) == 2
    assert "step 10 could not be written: No space left on device; the previous one stays" in warnings[0]
    assert steps_in(tmp_path / "run" / "checkpoints") == [5, 20]
    assert leftovers(tmp_path / "run") == []
    assert_same(outcome_of(tmp_path / "run"), uncut)


def test_a_disk_that_stays_full_ends_the_run_after_three_tries_and_the_old_checkpoint_is_good(
    tiny: TinyRun, tmp_path: Path, uncut: Outcome
):
    command = ("train", tiny.config(tmp_path), "checkpoint.every_steps=4")
    ended = run(*command, folder=tmp_path, plan={"fill_disk": {"saves": [2, 3, 4]}})
    assert ended.code == 1
    assert "3 checkpoints in a row failed" in ended.err
    assert "hint: make room in" in ended.err
    assert summarise(tmp_path / "run").state == "failed"
    assert steps_in(tmp_path / "run" / "checkpoints") == [4]
    ended = run(*command, folder=tmp_path)
    assert "resuming from" in ended.err
    assert ended.code == 0
    assert_same(outcome_of(tmp_path / "run"), uncut)


def test_a_write_that_the_system_refuses_counts_as_a_full_disk(tiny: TinyRun, tmp_path: Path):
    """RLIMIT_FSIZE: a real failing write, of the tensors alone."""
    plan = {"limit_file_bytes": {"limit": 100_000}}
    ended = run("train", tiny.config(tmp_path), folder=tmp_path, plan=plan)
    assert ended.code == 1
    assert "the checkpoint of step 5 could not be written: File too large" in ended.err
    assert "3 checkpoints in a row failed" in ended.err
    assert steps_in(tmp_path / "run" / "checkpoints") == []
    assert leftovers(tmp_path / "run") == []


def test_a_stop_that_cannot_be_saved_does_not_claim_to_be(tiny: TinyRun, tmp_path: Path):
    plan = {"fill_disk": {"saves": [2, 3]}, "terminate_at_step": {"step": 7}}
    ended = run("train", tiny.config(tmp_path), folder=tmp_path, plan=plan)
    assert ended.code == 1
    assert "everything is saved" not in ended.err
    assert "the checkpoint of step 7 is not in" in ended.err


def test_an_output_folder_that_is_a_file_is_refused_before_the_first_step(tiny: TinyRun, tmp_path: Path):
    (tmp_path / "run").write_text("mine")
    ended = run("train", tiny.config(tmp_path), folder=tmp_path)
    assert ended.code == 1
    assert f"`{tmp_path / 'run'}` cannot be written" in ended.err
    assert "hint: choose an output folder that you may write to" in ended.err
    assert "step 1" not in ended.err
    assert (tmp_path / "run").read_text() == "mine"


def test_an_output_folder_where_nothing_can_be_written_is_refused_before_the_first_step(
    tiny: TinyRun, tmp_path: Path
):
    """/proc takes no folders, not even root's."""
    ended = run("train", tiny.config(tmp_path), "run.folder=/proc/run", folder=tmp_path)
    assert ended.code == 1
    assert "`/proc/run` cannot be written: " in ended.err
    assert "hint: " in ended.err
    assert "step 1" not in ended.err


def test_a_second_writer_is_refused_naming_both(tiny: TinyRun, tmp_path: Path):
    config = tiny.config(tmp_path)
    (tmp_path / "run").mkdir()
    lock = RunLock(tmp_path / "run")
    lock.acquire()
    try:
        with start("train", config, folder=tmp_path) as program:
            ended = program.end()
            assert ended.code == 1
            assert f'"pid": {os.getpid()}' in ended.err
            assert f'this is {{"host": "{os.uname().nodename}", "pid": {program.pid}' in ended.err
    finally:
        lock.release()
    assert "step 1" not in ended.err
