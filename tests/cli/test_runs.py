"""`criadero runs`: a table for people, JSON for programs, and following a run to its end."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from criadero.cli import runs as verb
from criadero.runs import RunFolder


def make_run(folder: Path, *, loss: float, settings: str = "") -> None:
    run = RunFolder(folder)
    run.open()
    run.start_metrics(0)
    values = {"loss": loss, "tokens": 12_345_678, "tokens_per_second": 98_765.4, "joules": 7.2e6}
    run.write_metrics(1234, values)
    run.write_metrics(1234, {"heldout_loss": 2.0, "heldout_bits_per_byte": 1.23456})
    run.set_status("finished", 1234)
    run.close()
    (folder / "config.toml").write_text(settings)


@pytest.fixture
def two_runs(tmp_path: Path) -> Path:
    make_run(tmp_path / "a", loss=2.5, settings="[optimizer]\nlearning_rate = 0.001\n")
    make_run(tmp_path / "a-run-with-quite-a-long-name", loss=2.25, settings="")
    return tmp_path


def test_the_table_has_every_number_whole(program, two_runs: Path):
    outcome = program("runs", two_runs)
    assert outcome.code == 0
    lines = [line.split() for line in outcome.stdout.splitlines()]
    assert lines[2:] == [
        ["a", "finished", "1234", "12,345,678", "2.5000", "1.2346", "98,765", "2.0000", "kWh"],
        [
            "a-run-with-quite-a-long-name", "finished", "1234", "12,345,678", "2.2500", "1.2346", "98,765",
            "2.0000", "kWh",
        ],
    ]  # fmt: skip


def test_json_has_the_same_runs(program, two_runs: Path):
    found = json.loads(program("runs", two_runs, "--json").stdout)
    assert [(run["name"], run["loss"]) for run in found["runs"]] == [
        ("a", 2.5),
        ("a-run-with-quite-a-long-name", 2.25),
    ]
    assert found["differences"] == {}


def test_compared_runs_show_the_settings_in_which_they_differ(program, two_runs: Path):
    found = json.loads(program("runs", two_runs, "--json", "--compare").stdout)
    assert found["differences"] == {"optimizer.learning_rate": [0.001, None]}
    text = program("runs", two_runs, "--compare").stdout
    assert "optimizer.learning_rate: a=0.001, a-run-with-quite-a-long-name=None" in text


def test_one_run_can_be_named_by_itself(program, two_runs: Path):
    outcome = program("runs", two_runs / "a", "--compare", "--json")
    assert json.loads(outcome.stdout)["runs"][0]["name"] == "a"


def test_a_folder_that_is_not_there_is_an_error_and_an_empty_one_is_an_empty_list(program, tmp_path: Path):
    assert program("runs", tmp_path / "nothing").code == 1
    assert json.loads(program("runs", tmp_path, "--json").stdout) == {"runs": [], "differences": {}}


def test_following_prints_each_line_once_and_ends_with_the_run(program, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(verb, "_FOLLOW_SECONDS", 0.02)
    run = RunFolder(tmp_path)
    run.open()
    run.start_metrics(0)
    run.set_status("running", 0)
    run.write_metrics(1, {"loss": 3.0})

    def go_on() -> None:
        for step in range(2, 6):
            time.sleep(0.05)
            run.write_metrics(step, {"loss": 3.0 / step})
        run.set_status("finished", 5)

    writer = threading.Thread(target=go_on)
    writer.start()
    outcome = program("runs", tmp_path, "--follow")
    writer.join()
    run.close()
    rows = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert rows == [{"step": step, "loss": 3.0 / step} for step in range(1, 6)]


def test_following_a_killed_run_ends_at_once(program, tmp_path: Path):
    run = RunFolder(tmp_path)
    run.open()
    run.start_metrics(0)
    run.set_status("running", 0)
    run.write_metrics(1, {"loss": 3.0})
    run.close()
    assert json.loads(program("runs", tmp_path, "-f").stdout) == {"step": 1, "loss": 3.0}


def test_following_what_is_no_run_is_an_error(program, tmp_path: Path):
    outcome = program("runs", tmp_path, "--follow")
    assert outcome.code == 1
    assert "is not a run folder" in outcome.stderr


def test_following_a_folder_of_runs_names_one_of_them(program, two_runs: Path):
    outcome = program("runs", two_runs, "--follow")
    assert outcome.code == 2
    assert "is a folder of runs\nhint: name one of them, such as" in outcome.stderr


def test_a_folder_without_runs_is_said(program, tmp_path: Path):
    outcome = program("runs", tmp_path)
    assert (outcome.code, outcome.stdout) == (0, "")
    assert outcome.stderr == f"no runs in `{tmp_path}`\n"


def test_what_went_wrong_in_a_run_is_told_below_the_table(program, two_runs: Path):
    run = RunFolder(two_runs / "a")
    run.write_event("resumed", 5, rollbacks=0)
    for step in range(21, 28):
        run.write_event("spike", step, loss=3.25, gradient_norm=123.4)
    run.write_event("skipped", 28, loss=float("nan"), gradient_norm=7.0)
    counters = {"rollbacks": 1, "spikes": 8, "skipped_steps": 1}
    run.write_event("rollback", 28, to_step=25, first_sample=100, next_sample=1112, **counters)
    lines = program("runs", two_runs).stdout.splitlines()[4:]
    assert lines == [
        "a: 4 earlier events are in its events.jsonl",
        *(f"a: step {step}: the gradient norm was a spike (loss 3.25, norm 123.4)" for step in (25, 26, 27)),
        "a: step 28: the update was left out (loss -, norm 7)",
        "a: step 28: rolled back to step 25, 1,012 samples are passed over",
    ]
    found = json.loads(program("runs", two_runs, "--json").stdout)["runs"][0]["events"]
    assert [event["event"] for event in found[-2:]] == ["skipped", "rollback"]


def test_following_a_run_that_rolls_back_shows_what_came_in_place_of_what_was(
    program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(verb, "_FOLLOW_SECONDS", 0.05)
    run = RunFolder(tmp_path / "run")
    run.open()
    run.start_metrics(0)
    run.set_status("running", 0)
    for step in (1, 2, 3):
        run.write_metrics(step, {"loss": 5.0})

    def roll_back() -> None:
        time.sleep(0.5)
        run.start_metrics(2)
        run.write_metrics(3, {"loss": 4.0})
        run.set_status("finished", 3)
        run.close()

    thread = threading.Thread(target=roll_back)
    thread.start()
    rows = [json.loads(line) for line in program("runs", tmp_path / "run", "-f").stdout.splitlines()]
    thread.join()
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 5.0), (2, 5.0), (3, 5.0), (3, 4.0)]
