"""SIGTERM at any time ends the program soon, in order, with exit code 75; a second one ends it at once."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from criadero.checkpoint.load import find_newest_good
from criadero.checkpoint.manifest import steps_in
from faults.outcome import Outcome, assert_same, leftovers, outcome_of
from faults.program import run, start
from tiny_run import TinyRun

pytestmark = pytest.mark.xdist_group("signals")

STOPPED = 75


@pytest.mark.parametrize("seed", range(3))
def test_sigterm_at_a_random_time_saves_and_the_run_goes_on_to_the_same_end(
    tiny: TinyRun, tmp_path: Path, uncut: Outcome, seed: int
):
    config = tiny.config(tmp_path)
    plan = {"slow_steps": {"seconds": 0.1}}
    # Once as it is really started; the others are forked, which costs less.
    with start("train", config, folder=tmp_path, plan=plan, real=seed == 0) as program:
        program.wait_for("step 1/")
        with pytest.raises(AssertionError, match="no 'never'"):
            program.wait_for("never", timeout=random.Random(seed).uniform(0, 1.5))
        program.send(signal.SIGTERM)
        ended = program.end(timeout=30)
    assert ended.code == STOPPED
    acknowledged, saved = ended.err.index("stopping as soon as"), ended.err.index("everything is saved")
    assert acknowledged < saved
    assert 1 <= steps_in(tmp_path / "run" / "checkpoints")[-1] <= 20
    assert run("train", config, folder=tmp_path).code == 0
    assert_same(outcome_of(tmp_path / "run"), uncut)


def test_sigterm_while_scoring_heldout_text_stops_between_batches(
    tiny: TinyRun, tmp_path: Path, uncut: Outcome
):
    """Whole scoring takes over 20 s here; the flag is looked at every 8 batches."""
    config = tiny.config(tmp_path)
    plan = {"terminate_in": {"place": "heldout", "seconds": 0.5}}
    command = ("train", config, "train.micro_batch_sequences=1")
    ended = run(*command, "heldout.tokens=100000", "checkpoint.every_steps=7", folder=tmp_path, plan=plan)
    assert ended.code == STOPPED
    assert "stopped at step 10 of 20" in ended.err
    # Saved were this rank's shards with their moments, not the weights that scoring had gathered.
    state = outcome_of(tmp_path / "run")
    assert any(tensor.any() for name, tensor in state.tensors.items() if "embedding.weight.exp_avg" in name)
    assert run("train", config, folder=tmp_path).code == 0
    last = outcome_of(tmp_path / "run")
    assert [row[0] for row in last.curve] == [row[0] for row in uncut.curve]
    assert [row[1] for row in last.curve] == pytest.approx([row[1] for row in uncut.curve], abs=1e-5)


def test_sigterm_while_scoring_at_the_end_is_a_stop_too(tiny: TinyRun, tmp_path: Path, uncut: Outcome):
    config = tiny.config(tmp_path)
    plan = {"terminate_in": {"place": "heldout"}}
    ended = run(
        "train", config, "heldout.every_steps=0", "train.micro_batch_sequences=1", folder=tmp_path, plan=plan
    )
    assert ended.code == STOPPED
    ended = run("train", config, folder=tmp_path)
    assert ended.code == 0
    assert "heldout_bits_per_byte" in ended.out


def test_sigterm_while_shards_are_hashed_stops_before_the_next_file(tiny: TinyRun, tmp_path: Path):
    plan = {"terminate_in": {"place": "verify", "seconds": 0.5}}
    ended = run("train", tiny.config(tmp_path), folder=tmp_path, plan=plan)
    assert ended.code == STOPPED
    assert "stopped before the first step" in ended.err
    assert not steps_in(tmp_path / "run" / "checkpoints")


def test_sigterm_while_shards_are_built_leaves_nothing_half_done(tiny: TinyRun, tmp_path: Path):
    text = tmp_path / "text.txt"
    text.write_text("a mill by the river\n" * 50)
    plan = {"terminate_in": {"place": "build", "seconds": 1}}
    command = ("shards", "build", text, "--tokenizer", tiny.tokenizer, "--out", tmp_path / "shards")
    ended = run(*command, "--heldout-fraction", "0", folder=tmp_path, plan=plan)
    assert ended.code == STOPPED, ended.err
    assert "run the same command again" in ended.err
    assert not list(tmp_path.glob("shards*"))
    assert run(*command, "--heldout-fraction", "0", folder=tmp_path).code == 0


def test_sigterm_while_the_program_is_still_loading_is_a_stop(tiny: TinyRun, tmp_path: Path):
    with start("train", tiny.config(tmp_path), folder=tmp_path, plan={"slow_import": {}}) as program:
        program.wait_for("loading")
        program.send(signal.SIGTERM)
        ended = program.end(timeout=30)
    assert ended.code == STOPPED
    assert not (tmp_path / "run").exists()


def test_two_signals_end_the_program_at_once_and_leave_the_old_checkpoint(
    tiny: TinyRun, tmp_path: Path, uncut: Outcome
):
    config = tiny.config(tmp_path)
    plan = {"terminate_in": {"place": "heldout", "signals": 2, "seconds": 30}}
    ended = run("train", config, folder=tmp_path, plan=plan)
    assert ended.code == -signal.SIGTERM
    assert ended.seconds < 30
    newest = find_newest_good(tmp_path / "run" / "checkpoints")
    assert newest is not None
    assert newest.name in ("step-00000005", "step-00000010")
    assert run("train", config, folder=tmp_path).code == 0
    assert leftovers(tmp_path / "run") == []
    assert_same(outcome_of(tmp_path / "run"), uncut)
