"""kill -9 at any moment: nothing that was saved is lost, and the end is that of the uncut run, bit by bit."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from criadero.checkpoint.manifest import steps_in
from faults.cuts import MOMENTS, cut_and_resume
from faults.outcome import Outcome, assert_same, leftovers, outcome_of
from faults.program import run
from tiny_run import TinyRun

pytestmark = [pytest.mark.xdist_group("kills"), pytest.mark.timeout(300)]


@pytest.mark.slow
def test_a_kill_at_every_moment_of_a_save_costs_nothing_that_was_saved(
    tiny: TinyRun, tmp_path: Path, uncut: Outcome
):
    """One run, killed at each moment in turn: every start goes on from the last whole checkpoint."""
    command = ("train", tiny.config(tmp_path), "checkpoint.every_steps=4")
    folder, checkpoints = tmp_path / "run", tmp_path / "run" / "checkpoints"
    second_save = {"kill_at_point": {"number": len(MOMENTS) + 1}}
    assert run(*command, folder=tmp_path, plan=second_save, name="first").code == -signal.SIGKILL
    whole = 4
    for number, moment in enumerate(MOMENTS, start=1):
        was_left = leftovers(folder)
        plan = {"kill_at_point": {"number": number}}
        ended = run(*command, folder=tmp_path, plan=plan, name=f"moment{number}")
        assert ended.code == -signal.SIGKILL, (moment, ended.err)
        assert f"resuming from `{checkpoints / f'step-{whole:08d}'}`" in ended.err
        assert not set(was_left) & set(leftovers(folder)), moment
        if number > MOMENTS.index("folder-renamed"):  # from here on the new one has its name
            whole += 4
        assert steps_in(checkpoints)[-1] == whole
    assert whole == 20
    assert run(*command, folder=tmp_path, name="last").code == 0
    assert leftovers(folder) == []
    assert_same(outcome_of(folder), uncut)


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(tiny: TinyRun, tmp_path: Path, uncut: Outcome):
    """The short form of soak.py."""
    for seed in range(3):
        report = cut_and_resume(tiny, tmp_path / str(seed), seed=seed, real=False)
        print(report)
        assert_same(outcome_of(tmp_path / str(seed) / "run"), uncut)


def test_a_kill_while_the_model_folder_is_written_leaves_no_half_of_one(
    tiny: TinyRun, tmp_path: Path, uncut: Outcome
):
    config, folder = tiny.config(tmp_path), tmp_path / "run"
    plan = {"kill_in_export": {}}
    assert run("train", config, folder=tmp_path, plan=plan).code == -signal.SIGKILL
    assert not (folder / "model").exists()
    assert leftovers(folder)
    assert run("train", config, folder=tmp_path).code == 0
    assert (folder / "model" / "model.safetensors").exists()
    assert leftovers(folder) == []
    assert_same(outcome_of(folder), uncut)
