"""`criadero train`: the cost without a start, one JSON object, exit code 75 when asked to stop."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import pytest
from PIL import Image

from criadero.formats.load import load_model
from criadero.runs import METRICS, read_metrics
from tiny_run import STEP_TOKENS, TinyRun

CONFIGS = Path(__file__).parents[2] / "configs"


def test_a_dry_run_prints_the_cost_and_writes_nothing(program, tmp_path: Path):
    outcome = program(
        "train", CONFIGS / "debug.toml", f"run.folder={tmp_path / 'run'}", "--dry-run", "--json"
    )
    assert outcome.code == 0
    cost = json.loads(outcome.stdout)
    assert cost["fits"]
    assert cost["parameters"] == 315_680
    assert cost["flops_per_token"] == 6 * 315_680
    assert cost["bytes_per_rank"]["optimizer_states"] == 8 * 315_680
    assert cost["total_steps"] == 40
    assert cost["speed"] is None
    assert not (tmp_path / "run").exists()


def test_a_dry_run_for_people_has_a_line_for_each_number(program):
    outcome = program(
        "train", CONFIGS / "llama-7b.toml", "train.tokens=10_000_000", "--dry-run", "--fake-world-size", 64,
        "--device", "h100",
    )  # fmt: skip
    assert outcome.code == 0
    lines = [line.split() for line in outcome.stdout.splitlines()]
    assert ["parameters", "6,738,415,616"] in lines
    assert ["total_steps", "2"] in lines
    assert any(line[:1] == ["days"] for line in lines)
    assert any("MFU" in line or "47.8% of the bfloat16 peak" in line for line in outcome.stdout.splitlines())


def test_the_papers_largest_run_is_built_on_its_2048_ranks(program):
    outcome = program(
        "train",
        CONFIGS / "llama-65b.toml",
        "--dry-run",
        "--fake-world-size",
        2048,
        "--device",
        "A100",
        "--json",
    )
    assert outcome.code == 0
    cost = json.loads(outcome.stdout)
    assert cost["parameters"] == 65_285_660_672
    assert cost["ranks"] == 2048
    assert cost["mesh"] == {"dp_replicate": 1, "dp_shard": 256, "tp": 8}
    assert cost["micro_batches"] == 1
    assert cost["tokens_per_step"] == 4_194_304
    assert cost["bytes_per_rank"]["weights"] >= 4 * cost["parameters"] // 2048
    assert cost["bytes_per_rank"]["total"] < 80e9
    assert cost["speed"]["days"] == pytest.approx(21, rel=0.02)


def test_a_dry_run_prints_first_and_then_refuses_what_does_not_fit(program):
    outcome = program("train", CONFIGS / "llama-65b.toml", "--dry-run", "--device", "A100", "--json")
    assert outcome.code == 1
    assert json.loads(outcome.stdout)["fits"] is False
    assert "are available on a A100" not in outcome.stderr
    assert "hint: use" in outcome.stderr


def test_a_dry_run_that_compares_with_no_memory_does_not_say_that_it_fits(program):
    outcome = program("train", CONFIGS / "debug.toml", "--dry-run", "--fake-world-size", 2, "--json")
    assert outcome.code == 0
    cost = json.loads(outcome.stdout)
    assert cost["fits"] is None
    assert any("was not checked" in line for line in cost["assumed"])


@pytest.mark.parametrize(
    ("setting", "hint"),
    [("parallel.dp_replicate=3", "a multiple of 3 ranks"), ("parallel.dp_shard=3", "dp_shard at -1")],
)
def test_ranks_that_the_mesh_does_not_divide_are_told_what_would(program, setting: str, hint: str):
    outcome = program("train", CONFIGS / "debug.toml", setting, "--dry-run", "--fake-world-size", 7)
    assert outcome.code != 0
    assert "does not give 7 ranks" in outcome.stderr
    assert hint in outcome.stderr


def test_more_fake_ranks_than_this_machine_could_list_are_refused(program):
    outcome = program("train", CONFIGS / "debug.toml", "--dry-run", "--fake-world-size", 10**9)
    assert outcome.code == 2
    assert "32768" in outcome.stderr


def test_questions_of_a_dry_run_without_one_are_a_usage_error(program, tiny: TinyRun, tmp_path: Path):
    for question in (["--fake-world-size", 8], ["--device", "A100"]):
        outcome = program("train", tiny.config(tmp_path), *question)
        assert outcome.code == 2
        assert "--dry-run" in outcome.stderr
    assert not (tmp_path / "run").exists()


def test_a_device_nobody_knows_is_refused(program):
    outcome = program("train", CONFIGS / "debug.toml", "--dry-run", "--device", "A1000")
    assert outcome.code == 2
    assert "unknown device `A1000`" in outcome.stderr


def test_a_dry_run_says_how_often_each_source_is_read(program, tiny: TinyRun, tmp_path: Path):
    outcome = program("train", tiny.config(tmp_path), "--dry-run", "--json")
    epochs = json.loads(outcome.stdout)["epochs"]
    assert len(epochs) >= 1
    assert all(times > 0 for times in epochs.values())


def test_results_are_one_json_object_on_stdout_and_progress_is_on_stderr(
    program, tiny: TinyRun, tmp_path: Path
):
    outcome = program("train", tiny.config(tmp_path, steps=4), "run.log_seconds=1000", "--json")
    assert outcome.code == 0
    summary = json.loads(outcome.stdout)
    assert (summary["step"], summary["tokens"]) == (4, 4 * STEP_TOKENS)
    assert summary["heldout_bits_per_byte"] > 0
    assert [line.split()[1] for line in outcome.stderr.splitlines() if line.startswith("step ")] == [
        "1/4",
        "4/4",
    ]
    with Image.open(summary["loss_curve"]) as image:
        assert image.format == "PNG"
    assert load_model(Path(summary["model"])).config.num_layers == 4


def test_for_people_the_next_command_is_named(program, tiny: TinyRun, tmp_path: Path):
    outcome = program("-q", "train", tiny.config(tmp_path, steps=5))
    assert outcome.stderr == ""
    assert (
        outcome.stdout.splitlines()[-1] == f"next: criadero generate {tmp_path}/run/model 'Once upon a time'"
    )


def test_asked_to_stop_it_saves_says_how_to_go_on_and_ends_with_75(program, tiny: TinyRun, tmp_path: Path):
    config = tiny.config(tmp_path, steps=5000)
    metrics = tmp_path / "run" / METRICS
    ended = threading.Event()

    def stop_after_some_steps() -> None:
        while not ended.wait(0.02):
            if len(list(read_metrics(metrics))) >= 3:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    watcher = threading.Thread(target=stop_after_some_steps)
    watcher.start()
    try:
        outcome = program("train", config)
    finally:
        ended.set()
        watcher.join()
    assert outcome.code == 75
    assert outcome.stdout == ""
    *_, message, hint = outcome.stderr.splitlines()
    steps = len([row for row in read_metrics(metrics) if "loss" in row])
    assert message == f"stopped at step {steps} of 5000, everything is saved"
    assert hint == "hint: run the same command again to go on"
    assert (tmp_path / "run" / "checkpoints").is_dir()


@pytest.mark.parametrize("override", ["data.sources=[]", "train.tokens=1", "model.heads=3"])
def test_a_bad_override_is_exit_code_2_before_anything_is_written(
    program, tiny: TinyRun, tmp_path: Path, override: str
):
    outcome = program("train", tiny.config(tmp_path), override)
    assert outcome.code == 2
    assert not (tmp_path / "run").exists()


def test_shards_that_are_not_there_are_an_error(program, tiny: TinyRun, tmp_path: Path):
    outcome = program("train", tiny.config(tmp_path, shards=tmp_path / "nothing"))
    assert outcome.code == 1
    assert "Traceback" not in outcome.stderr
    assert str(tmp_path / "nothing") in outcome.stderr
