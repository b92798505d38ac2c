"""A whole run at toy size: what it learns, what it writes, and that its end can be moved."""

from __future__ import annotations

import errno
import json
import logging
import math
import shutil
import tomllib
from pathlib import Path

import pytest
import torch

from criadero.carbon.ledger import read_segments
from criadero.config import to_values
from criadero.errors import CheckpointError, RunError, StoppedEarly
from criadero.formats.load import load_model
from criadero.runs import METRICS, read_metrics, summarise
from criadero.train.hooks import NoHook
from criadero.train.loop import TrainResult, train
from criadero.train.schedule import learning_rate
from criadero.train.stop import StopFlag
from tiny_run import STEP_TOKENS, STEPS, VOCAB_SIZE, TinyRun

SAME = ("loss", "learning_rate", "gradient_norm", "tokens", "skipped", "spike")


@pytest.fixture(scope="module")
def run(tiny: TinyRun, tmp_path_factory) -> tuple[Path, TrainResult]:
    folder = tmp_path_factory.mktemp("loop")
    config = tiny.run_config(folder, 'run.sinks=["tensorboard"]')
    return config.run.folder, train(config)


def steps_of(folder: Path) -> dict[int, dict]:
    return {row["step"]: row for row in read_metrics(folder / METRICS) if "loss" in row}


def test_the_loss_starts_at_an_even_guess_and_falls(run):
    rows = steps_of(run[0])
    assert rows[1]["loss"] == pytest.approx(math.log(VOCAB_SIZE), abs=0.1)
    assert rows[STEPS]["loss"] < rows[1]["loss"] - 0.5


def test_every_step_is_logged_once_with_all_its_numbers(run):
    lines = [json.loads(line) for line in (run[0] / METRICS).read_text().splitlines()]
    assert [row["step"] for row in lines if "loss" in row] == list(range(1, STEPS + 1))
    expected = {
        "step", "loss", "learning_rate", "gradient_norm", "tokens", "skipped", "spike",
        "step_seconds", "tokens_per_second", "flops_per_second", "mfu_6n", "mfu_palm",
        "eta_seconds", "memory_bytes", "joules",
    }  # fmt: skip
    assert all(row.keys() == expected for row in lines if "loss" in row)
    last = steps_of(run[0])[STEPS]
    assert last["tokens"] == STEPS * STEP_TOKENS
    assert last["eta_seconds"] == 0
    assert last["mfu_6n"] is None


def test_rates_follow_the_schedule_to_its_exact_end(run, tiny, tmp_path):
    config = tiny.run_config(tmp_path)
    for step, row in steps_of(run[0]).items():
        expected = learning_rate(step - 1, maximum=3e-3, total_steps=STEPS, schedule=config.schedule)
        assert row["learning_rate"] == expected
    assert steps_of(run[0])[STEPS]["learning_rate"] == pytest.approx(3e-4)


def test_heldout_text_is_scored_on_the_way_and_whole_at_the_end(run):
    scored = [row for row in read_metrics(run[0] / METRICS) if "heldout_loss" in row]
    assert [row["step"] for row in scored] == [10, STEPS]
    assert scored[-1]["heldout_bits_per_byte"] < scored[0]["heldout_bits_per_byte"]
    assert run[1].heldout == {key: scored[-1][key] for key in ("heldout_loss", "heldout_bits_per_byte")}


def test_the_run_folder_tells_what_was_run_where_and_how_it_ended(run):
    folder, result = run
    environment = json.loads((folder / "environment.json").read_text())
    # The wheel of the package index leaves out the part that names the build: 2.13.0, not 2.13.0+cu130.
    assert environment["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    config = tomllib.loads((folder / "config.toml").read_text())
    assert config["optimizer"]["weight_decay"] == 0.1
    assert config["train"]["seed"] == 0
    (segment,) = read_segments(folder)
    assert (segment.outcome, segment.steps, segment.tokens) == ("finished", STEPS, STEPS * STEP_TOKENS)
    assert result.joules > 0
    assert 0 < summarise(folder).joules <= result.joules  # the last line is written before the last reading


def test_the_model_folder_scores_as_the_run_did_and_walks_back_to_its_data(run):
    folder, result = run
    loaded = load_model(folder / "model")
    assert loaded.tokenizer is not None
    tokens_BT = torch.tensor([loaded.tokenizer.encode("the old mill turns", bos=True)])
    assert loaded.model(tokens_BT).isfinite().all()
    inputs = json.loads((folder / "model" / "manifest.json").read_text())["inputs"]
    assert (inputs["step"], inputs["tokens"]) == (STEPS, STEPS * STEP_TOKENS)
    assert set(inputs["data"]) == {"tiny"}
    assert result.model == folder / "model"


def test_a_finished_run_started_again_changes_nothing(run, tiny, caplog):
    caplog.set_level(logging.INFO, logger="criadero")
    folder, result = run
    before = (folder / METRICS).read_text().splitlines()
    model = (folder / "model" / "model.safetensors").stat().st_mtime_ns
    again = train(tiny.run_config(folder.parent, 'run.sinks=["tensorboard"]'))
    assert again.state == result.state
    assert again.heldout == result.heldout
    assert (folder / "model" / "model.safetensors").stat().st_mtime_ns == model
    assert (folder / METRICS).read_text().splitlines() == before
    assert again.joules == pytest.approx(result.joules, rel=0.5)
    assert "the run is finished" in caplog.text


def test_a_finished_run_whose_model_is_gone_writes_it_again(run, tiny):
    folder, result = run
    model = folder / "model" / "model.safetensors"
    before = model.read_bytes()
    shutil.rmtree(folder / "model")
    again = train(tiny.run_config(folder.parent, 'run.sinks=["tensorboard"]'))
    assert model.read_bytes() == before
    assert again.heldout == result.heldout


def test_a_finished_run_with_other_settings_is_refused(run, tiny):
    with pytest.raises(CheckpointError, match=r"train\.seed: was 0, is 5"):
        train(tiny.run_config(run[0].parent, "train.seed=5"))


class StopAt(NoHook):
    """Asks for an end after a step, as a signal would."""

    def __init__(self, step: int) -> None:
        self.step, self.flag = step, StopFlag()

    def after_step(self, state, metrics, *, total_steps) -> None:
        self.flag.requested = self.flag.requested or state.step == self.step


def test_a_stopped_run_goes_on_to_the_same_numbers_and_weights(run, tiny, tmp_path):
    config = tiny.run_config(tmp_path)
    hook = StopAt(7)
    with pytest.raises(StoppedEarly, match="step 8 of 20") as problem:
        train(config, stop=hook.flag, hooks=[hook])
    assert "same command" in problem.value.hint
    assert summarise(config.run.folder).state == "stopped"
    resumed = train(config)
    whole, cut = steps_of(run[0]), steps_of(config.run.folder)
    assert list(cut) == list(whole)
    for step, row in whole.items():
        assert {name: cut[step][name] for name in SAME} == {name: row[name] for name in SAME}, step
    assert resumed.state == run[1].state
    assert resumed.heldout == run[1].heldout
    assert [segment.outcome for segment in read_segments(config.run.folder)] == ["stopped", "finished"]
    weights = [
        (folder / "model" / "model.safetensors").read_bytes() for folder in (run[0], config.run.folder)
    ]
    assert weights[0] == weights[1]


def test_asked_to_stop_before_the_first_step_it_does_not_begin(tiny, tmp_path):
    stop = StopFlag()
    stop.requested = True
    with pytest.raises(StoppedEarly, match="before the first step"):
        train(tiny.run_config(tmp_path), stop=stop)


def test_asked_to_stop_at_its_very_end_it_is_scored_the_next_time(tiny, tmp_path):
    config = tiny.run_config(tmp_path, steps=3)
    hook = StopAt(3)
    with pytest.raises(StoppedEarly, match="step 3 of 3"):
        train(config, stop=hook.flag, hooks=[hook])
    assert summarise(config.run.folder).state == "stopped"
    assert train(config).heldout["heldout_bits_per_byte"] > 0
    assert list(steps_of(config.run.folder)) == [1, 2, 3]


def test_a_larger_budget_extends_a_finished_run(tiny, tmp_path):
    train(tiny.run_config(tmp_path, steps=4))
    config = tiny.run_config(tmp_path, steps=6)
    result = train(config)
    assert result.state.step == 6
    assert list(steps_of(config.run.folder)) == [1, 2, 3, 4, 5, 6]
    inputs = json.loads((config.run.folder / "model" / "manifest.json").read_text())["inputs"]
    assert inputs["step"] == 6


def test_a_model_that_cannot_be_replaced_stays(tiny, tmp_path, monkeypatch):
    config = tiny.run_config(tmp_path, steps=2)
    train(config)

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("criadero.train.export.save_model", fail)
        with pytest.raises(OSError, match="No space"):
            train(tiny.run_config(tmp_path, steps=3))
    assert json.loads((config.run.folder / "model" / "manifest.json").read_text())["inputs"]["step"] == 2
    train(tiny.run_config(tmp_path, steps=3))
    assert json.loads((config.run.folder / "model" / "manifest.json").read_text())["inputs"]["step"] == 3
    assert not list(config.run.folder.glob("*.tmp-*"))


def test_other_settings_in_the_same_folder_are_refused(tiny, tmp_path):
    train(tiny.run_config(tmp_path, steps=2))
    with pytest.raises(CheckpointError, match=r"optimizer\.learning_rate: was 0\.003, is 0\.1"):
        train(tiny.run_config(tmp_path, "optimizer.learning_rate=0.1", steps=2))


def test_a_run_without_heldout_text_finishes_without_a_score(tiny, tmp_path):
    shards = tmp_path / "shards"
    shards.mkdir()
    for part in ("train", "tokenizer"):
        (shards / part).symlink_to(tiny.shards / part)
    (shards / "manifest.json").symlink_to(tiny.shards / "manifest.json")
    config = tiny.run_config(tmp_path, steps=2)
    source = config.data.sources[0].model_copy(update={"path": shards})
    data = config.data.model_copy(update={"sources": (source,)})
    result = train(config.model_copy(update={"data": data}))
    assert result.heldout == {}
    assert result.state.step == 2


def test_a_hook_that_fails_leaves_a_failed_run_and_a_free_lock(tiny, tmp_path):
    class Fails(NoHook):
        def before_step(self, model, state) -> None:
            raise RunError("out of ideas")

    config = tiny.run_config(tmp_path)
    with pytest.raises(RunError, match="out of ideas"):
        train(config, hooks=[Fails()])
    status = json.loads((config.run.folder / "status.json").read_text())
    assert (status["state"], status["error"]) == ("failed", "RunError: out of ideas")
    assert (config.run.folder / "run.lock").read_text() == ""


def test_the_saved_config_is_the_whole_resolved_one(run, tiny):
    saved = tomllib.loads((run[0] / "config.toml").read_text())
    assert saved == to_values(tiny.run_config(run[0].parent, 'run.sinks=["tensorboard"]'))
