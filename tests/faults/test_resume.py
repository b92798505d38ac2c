"""A run that goes on after a stop, after damage, or with a larger budget ends as if nothing had happened."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from criadero.checkpoint.load import find_newest_good
from criadero.runs import summarise
from faults.outcome import Outcome, assert_same, outcome_of
from faults.program import run
from tiny_run import EPOCH_STEPS, STEP_TOKENS, TinyRun

pytestmark = pytest.mark.xdist_group("resumes")


def stop_after(step: int) -> dict[str, dict[str, int]]:
    return {"terminate_at_step": {"step": step}}


@pytest.mark.parametrize("stops", [(10,), (7, 13)], ids=["10+10", "7+6+7"])
def test_a_run_in_parts_is_the_run_in_one_go(
    tiny: TinyRun, tmp_path: Path, uncut: Outcome, stops: tuple[int, ...]
):
    """An epoch has 9 steps: 7 + 6 + 7 stops twice inside one epoch's text and crosses two borders."""
    assert EPOCH_STEPS == 9
    config = tiny.config(tmp_path)
    for stop in stops:
        ended = run("train", config, folder=tmp_path, plan=stop_after(stop))
        assert ended.code == 75
        assert f"stopped at step {stop} of 20, everything is saved" in ended.err
        assert "hint: run the same command again" in ended.err
        assert summarise(tmp_path / "run").state == "stopped"
    assert run("train", config, folder=tmp_path).code == 0
    assert summarise(tmp_path / "run").state == "finished"
    assert_same(outcome_of(tmp_path / "run"), uncut)


def flip(checkpoint: Path) -> None:
    path = next(checkpoint.glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut_short(checkpoint: Path) -> None:
    path = next(checkpoint.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1])


def lose_manifest(checkpoint: Path) -> None:
    (checkpoint / "manifest.json").unlink()


def come_from_the_future(checkpoint: Path) -> None:
    path = checkpoint / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99}))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip, "sha256"),
        (cut_short, "bytes"),
        (lose_manifest, "has no manifest.json"),
        (come_from_the_future, "format version 99, this program reads version 1"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_and_made_anew(
    tiny: TinyRun,
    tmp_path: Path,
    uncut_folder: Path,
    uncut: Outcome,
    damage: Callable[[Path], None],
    reason: str,
):
    shutil.copytree(uncut_folder, tmp_path / "run")
    checkpoints = tmp_path / "run" / "checkpoints"
    damage(checkpoints / "step-00000020")
    ended = run("train", tiny.config(tmp_path), folder=tmp_path)
    assert ended.code == 0
    (warning,) = (line for line in ended.err.splitlines() if "passing over" in line)
    assert warning.startswith(f"warning: passing over the checkpoint `{checkpoints / 'step-00000020'}`: ")
    assert reason in warning
    assert f"resuming from `{checkpoints / 'step-00000015'}`" in ended.err
    assert find_newest_good(checkpoints) == checkpoints / "step-00000020"
    assert_same(outcome_of(tmp_path / "run"), uncut)


def test_a_finished_run_goes_on_with_a_larger_budget(
    tiny: TinyRun, tmp_path: Path, uncut_folder: Path, uncut: Outcome
):
    shutil.copytree(uncut_folder, tmp_path / "run")
    ended = run("train", tiny.config(tmp_path), f"train.tokens={24 * STEP_TOKENS}", folder=tmp_path)
    assert ended.code == 0
    longer = outcome_of(tmp_path / "run")
    assert longer.curve[:20] == uncut.curve
    assert [row[0] for row in longer.curve[20:]] == [21, 22, 23, 24]
    assert longer.state["train"]["tokens"] == 24 * STEP_TOKENS
    assert json.loads((tmp_path / "run/model/manifest.json").read_text())["inputs"]["step"] == 24


def test_other_settings_are_refused_with_a_list_and_nothing_is_touched(
    tiny: TinyRun, tmp_path: Path, uncut_folder: Path
):
    shutil.copytree(uncut_folder, tmp_path / "run")
    kept = {
        name: (tmp_path / "run" / name).read_bytes()
        for name in ("config.toml", "metrics.jsonl", "status.json")
    }
    command = ("train", tiny.config(tmp_path), "optimizer.learning_rate=0.01", "model.dim=64", "train.seed=3")
    ended = run(*command, folder=tmp_path)
    assert ended.code == 1
    assert "optimizer.learning_rate: was 0.003, is 0.01" in ended.err
    assert "model.dim: was 32, is 64" in ended.err
    assert "train.seed: was 0, is 3" in ended.err
    assert "hint: " in ended.err
    for name, content in kept.items():
        assert (tmp_path / "run" / name).read_bytes() == content, name


def test_pretraining_goes_on_from_weights_of_another_run(
    tiny: TinyRun, tmp_path: Path, uncut_folder: Path, uncut: Outcome
):
    weights = f"initial_model={uncut_folder / 'model'}"
    ended = run("train", tiny.config(tmp_path, steps=4), weights, folder=tmp_path)
    assert ended.code == 0, ended.err
    first_loss = outcome_of(tmp_path / "run").curve[0][1]
    assert first_loss == pytest.approx(uncut.curve[-1][1], abs=0.2)
    assert first_loss < uncut.curve[0][1] - 1
