"""`criadero train` as other programs use it: --dry-run --json, --json, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

from criadero.model.presets import num_parameters
from faults.program import run
from tiny_run import STEP_TOKENS, TinyRun


def test_a_dry_run_prints_one_json_object_and_touches_nothing(tiny: TinyRun, tmp_path: Path):
    ended = run("train", tiny.config(tmp_path), "--dry-run", "--json", folder=tmp_path)
    assert ended.code == 0, ended.err
    cost = json.loads(ended.out)
    config = tiny.run_config(tmp_path)
    assert cost["parameters"] == num_parameters(config.model)
    assert cost["total_steps"] == 20
    assert cost["tokens_per_step"] == STEP_TOKENS
    assert cost["bytes_per_rank"]["total"] > 16 * cost["parameters"]
    assert not (tmp_path / "run").exists()


def test_a_run_prints_one_json_object_on_stdout(tiny: TinyRun, tmp_path: Path):
    ended = run("train", tiny.config(tmp_path, steps=2), "--json", folder=tmp_path)
    assert ended.code == 0, ended.err
    summary = json.loads(ended.out)
    assert summary["step"] == 2
    assert summary["tokens"] == 2 * STEP_TOKENS
    assert summary["heldout_bits_per_byte"] > 0
    assert Path(summary["model"], "model.safetensors").exists()
    assert Path(summary["loss_curve"]).exists()


def test_faults_of_the_config_are_all_listed_and_exit_with_2(tiny: TinyRun, tmp_path: Path):
    command = ("train", tiny.config(tmp_path), "train.seeed=1", "optimizer.learning_rate=-1")
    ended = run(*command, folder=tmp_path)
    assert ended.code == 2
    assert "2 faults" in ended.err
    assert "did you mean" in ended.err
    assert not (tmp_path / "run").exists()
