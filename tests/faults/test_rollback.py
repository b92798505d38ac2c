"""Going back after a spike: to the last checkpoint, and on with the samples after it, killed or not.

Steps are of 4 samples; the spike is in those of step 27, the last checkpoint before it is of step 25.
"""

from __future__ import annotations

import json
import logging
import signal
from pathlib import Path

import pytest

from criadero.checkpoint.load import find_newest_good, read_state
from criadero.errors import NumericsError
from criadero.runs import EVENTS, RunFolder, first_sample, read_events, read_metrics, summarise
from criadero.train.loop import train
from faults.outcome import Outcome, assert_same, outcome_of
from faults.program import run, run_on_ranks
from faults.test_numerics import Poison
from tiny_run import TinyRun

pytestmark = pytest.mark.xdist_group("rollback")

STEPS = 32
SPIKE = {"spike_at_samples": {"samples": [106]}}
POLICY = ("train.on_spike=rollback", "heldout.every_steps=0", "train.skip_budget=3")


def train_program(tiny: TinyRun, folder: Path, **plan: dict) -> int:
    return run("train", tiny.config(folder, steps=STEPS), *POLICY, folder=folder, plan=SPIKE | plan).code


@pytest.fixture(scope="module")
def rolled_back(tiny: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of a run in one go that went back once."""
    folder = tmp_path_factory.mktemp("rolled_back")
    assert train_program(tiny, folder, log_samples={"path": str(folder / "samples")}) == 0
    return folder


@pytest.fixture(scope="module")
def unbroken(rolled_back: Path) -> Outcome:
    return outcome_of(rolled_back / "run")


def steps_of(folder: Path) -> list[int]:
    return [row["step"] for row in read_metrics(folder / "run" / "metrics.jsonl") if "loss" in row]


def story_of(folder: Path) -> list[tuple[str, int]]:
    return [(event["event"], event["step"]) for event in read_events(folder / "run" / EVENTS)]


def test_the_run_goes_back_to_the_checkpoint_and_on_with_the_samples_after_the_spike(rolled_back: Path):
    lines = [json.loads(line) for line in (rolled_back / "samples.0").read_text().splitlines()]
    assert [line[0] for line in lines] == [*range(1, 28), *range(26, 33)]
    assert [sample for _, samples in lines for sample in samples] == list(range(34 * 4))
    state = read_state(find_newest_good(rolled_back / "run" / "checkpoints"))["train"]
    assert (state["step"], state["next_sample"], state["rollbacks"]) == (32, 34 * 4, 1)
    assert (state["spikes"], state["skipped_steps"]) == (1, 1)
    assert summarise(rolled_back / "run").state == "finished"


def test_each_step_has_one_line_of_metrics_and_the_events_keep_the_story(rolled_back: Path):
    assert steps_of(rolled_back) == list(range(1, 33))
    rows = read_metrics(rolled_back / "run" / "metrics.jsonl")
    assert not any(row["spike"] for row in rows if "loss" in row)
    skipped, rollback = read_events(rolled_back / "run" / EVENTS)
    assert (skipped["event"], skipped["step"]) == ("skipped", 27)
    assert (skipped["first_sample"], skipped["next_sample"]) == (104, 108)
    assert skipped["gradient_norm"] > 100
    assert 1 < skipped["loss"] < 10
    assert (rollback["event"], rollback["step"], rollback["to_step"]) == ("rollback", 27, 25)
    assert (rollback["first_sample"], rollback["next_sample"]) == (100, 108)


def test_every_step_is_shown_with_the_samples_it_was_trained_on(rolled_back: Path):
    trained = dict(json.loads(line) for line in (rolled_back / "samples.0").read_text().splitlines())
    for step in range(1, 33):
        start = first_sample(rolled_back / "run", step, 4)
        assert trained[step] == list(range(start, start + 4))
    command = ("shards", "show", "--run", rolled_back / "run", "--step", "27", "--json")
    shown = json.loads(run(*command, folder=rolled_back, name="show").out)
    assert [sample["sample"] for sample in shown["samples"]] == trained[27]


@pytest.mark.parametrize(
    "plan",
    [
        {"kill_in_rollback": {"number": 1, "before": "write_event"}},
        {"kill_in_rollback": {"number": 1, "before": "_load"}},
        {"kill_in_rollback": {"number": 1, "before": "_restart_metrics"}},
        {"kill_at_step": {"step": 27}},
    ],
    ids=["before the event", "after the event", "after loading", "steps later"],
)
def test_killed_anywhere_around_a_roll_back_the_run_ends_as_the_unbroken_one(
    tiny: TinyRun, tmp_path: Path, unbroken: Outcome, plan: dict
):
    assert train_program(tiny, tmp_path, **plan) == -signal.SIGKILL
    assert train_program(tiny, tmp_path) == 0
    assert_same(outcome_of(tmp_path / "run"), unbroken)
    assert ("resumed", 25) in story_of(tmp_path)
    assert first_sample(tmp_path / "run", 27, 4) == 112


def test_two_ranks_go_back_together(tiny: TinyRun, tmp_path: Path, unbroken: Outcome):
    command = ("train", tiny.config(tmp_path, steps=STEPS), *POLICY)
    for ended in run_on_ranks(2, *command, folder=tmp_path, plan=SPIKE):
        assert ended.code == 0, ended.err
    found = outcome_of(tmp_path / "run")
    assert found.state == unbroken.state | {"train": found.state["train"]}
    assert [row[0] for row in found.curve] == list(range(1, 33))
    assert [row[1] for row in found.curve] == pytest.approx([row[1] for row in unbroken.curve], abs=1e-4)
    assert story_of(tmp_path) == [("skipped", 27), ("rollback", 27)]


def test_roll_backs_that_do_not_help_end_at_the_budget(tiny: TinyRun, tmp_path: Path):
    """The same step is a spike again and again, with other samples each time."""
    config = tiny.run_config(tmp_path, *POLICY, "train.skip_budget=2", steps=STEPS)
    with pytest.raises(NumericsError, match=r"step 27: .*training samples 120 to 123.*2 steps were skipped"):
        train(config, hooks=[Poison((27,), how="spike")])
    assert story_of(tmp_path) == [("skipped", 27), ("rollback", 27)] * 2
    assert summarise(tmp_path / "run").state == "failed"


def test_without_a_checkpoint_the_step_is_left_out_and_that_is_said(
    tiny: TinyRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, logger="criadero")
    config = tiny.run_config(tmp_path, *POLICY, "checkpoint.every_steps=100", steps=STEPS)
    result = train(config, hooks=[Poison((27,), how="spike")])
    assert (result.state.step, result.state.skipped_steps, result.state.rollbacks) == (32, 1, 0)
    assert "there is no checkpoint to go back to: the step was left out" in caplog.text
    assert story_of(tmp_path) == [("skipped", 27)]


def rollback_to(step: int, *, number: int, next_sample: int) -> dict:
    counters = {"next_sample": next_sample, "rollbacks": number, "spikes": number, "skipped_steps": number}
    return {"event": "rollback", "step": step + 7, "to_step": step, **counters}


@pytest.fixture
def story(tmp_path: Path):
    """Writes events as they are given."""
    folder = RunFolder(tmp_path)

    def write(*events: dict) -> RunFolder:
        for event in events:
            values = dict(event)
            folder.write_event(values.pop("event"), values.pop("step"), **values)
        return folder

    return write


def test_a_checkpoint_that_knows_of_its_roll_back_does_not_meet_it_twice(story):
    folder = story(rollback_to(10, number=1, next_sample=80))
    assert folder.roll_back_to(10, rollbacks=0)["next_sample"] == 80
    assert folder.roll_back_to(10, rollbacks=1) is None
    assert folder.roll_back_to(15, rollbacks=0) is None


def test_of_two_roll_backs_to_one_checkpoint_the_later_counts(story):
    folder = story(*(rollback_to(10, number=n, next_sample=80 * n) for n in (1, 2)))
    assert folder.roll_back_to(10, rollbacks=0)["next_sample"] == 160
    assert first_sample(folder.path, 11, 4) == 160
    assert first_sample(folder.path, 10, 4) == 36


def test_a_resume_from_before_a_roll_back_leaves_it_out(story):
    """As where the checkpoint it went to was found damaged."""
    folder = story(
        rollback_to(10, number=1, next_sample=80),
        rollback_to(20, number=2, next_sample=160),
        {"event": "resumed", "step": 15, "rollbacks": 1},
    )
    assert folder.roll_back_to(20, rollbacks=1) is None
    assert first_sample(folder.path, 21, 4) == 80 + 10 * 4


def test_a_torn_event_is_not_read_and_does_not_spoil_the_next(story):
    folder = story({"event": "resumed", "step": 5})
    with folder.events_path.open("a") as stream:
        stream.write('{"event": "rollback", "step": 1')
    story({"event": "spike", "step": 6, "loss": float("nan")})
    events = read_events(folder.events_path)
    assert [(event["event"], event["step"]) for event in events] == [("resumed", 5), ("spike", 6)]
