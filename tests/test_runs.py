"""The run folder: one writer at a time, metrics that a crash cannot spoil, and what readers see."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from criadero import notices, runs
from criadero.errors import RunError
from criadero.runs import (
    METRICS,
    RunFolder,
    RunLock,
    RunSummary,
    describe_environment,
    differing_settings,
    find_runs,
    git_commit,
    read_metrics,
    summarise,
)

HOLDER = """
import sys, time
from pathlib import Path
from criadero.runs import RunFolder
run = RunFolder(Path(sys.argv[1]))
run.open()
run.set_status("running", 3)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "_said", set())


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that writes the run folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_writer_is_refused_told_who_writes_and_changes_nothing(tmp_path: Path, holder):
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RunError) as problem:
        RunFolder(tmp_path).open()
    assert f'"pid": {holder.pid}' in problem.value.message
    assert f'"host": "{socket.gethostname()}"' in problem.value.message
    assert f'"pid": {os.getpid()}' in problem.value.message
    assert "another run folder" in problem.value.hint
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert summarise(tmp_path).state == "running"


def test_the_lock_of_a_dead_process_is_taken_over_and_that_is_said(tmp_path: Path, holder, caplog):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert summarise(tmp_path).state == "killed"
    run = RunFolder(tmp_path)
    with caplog.at_level(logging.WARNING, "criadero"):
        run.open()
    assert f'"pid": {holder.pid}' in caplog.text
    assert json.loads((tmp_path / "run.lock").read_text())["pid"] == os.getpid()
    run.close()


def test_a_lock_of_another_host_is_refused_and_stays(tmp_path: Path):
    theirs = json.dumps({"host": "elsewhere", "pid": 1, "started": "2020-01-01"})
    (tmp_path / "run.lock").write_text(theirs)
    for _ in range(2):
        with pytest.raises(RunError, match='"host": "elsewhere"') as problem:
            RunLock(tmp_path).acquire()
    assert "remove" in problem.value.hint
    assert (tmp_path / "run.lock").read_text() == theirs


def test_a_lock_given_back_is_free_without_a_word(tmp_path: Path, caplog):
    lock = RunLock(tmp_path)
    assert not lock.is_held()
    for _ in range(2):
        lock.acquire()
        assert RunLock(tmp_path).is_held()
        lock.release()
        assert not RunLock(tmp_path).is_held()
    lock.release()
    assert caplog.text == ""


def test_opening_tidies_up_and_tells_where_the_run_takes_place(tmp_path: Path):
    (tmp_path / "status.json.tmp-1").write_text("{")
    run = RunFolder(tmp_path / "deep" / "run")
    run.open()
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["pid"] == os.getpid()
    assert environment.keys() == describe_environment().keys()
    assert set(environment["versions"]) >= {"criadero", "torch", "numpy"}
    run.close()
    again = RunFolder(tmp_path)
    again.open()
    assert not (tmp_path / "status.json.tmp-1").exists()
    again.close()


def test_a_loss_that_was_not_finite_does_not_leave_an_older_one_standing(tmp_path: Path):
    (tmp_path / "status.json").write_text('{"state": "failed", "step": 2}')
    (tmp_path / METRICS).write_text('{"step": 1, "loss": 3.5, "tokens": 10}\n{"step": 2, "loss": null}\n')
    assert summarise(tmp_path) == RunSummary(tmp_path.name, "failed", 2, 10, None, None, None, None)


def test_the_commit_is_gits_own_or_unknown(monkeypatch):
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    expected = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    assert git_commit() == (expected or None)
    monkeypatch.setenv("PATH", "")
    assert git_commit() is None


def test_the_commit_of_a_repository_around_the_installed_package_is_not_ours(tmp_path: Path, monkeypatch):
    package = tmp_path / ".venv" / "criadero"
    package.mkdir(parents=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(runs, "__file__", str(package / "runs.py"))
    assert git_commit() is None


def write_rows(run: RunFolder, resumed_step: int, rows: list[dict]) -> None:
    run.open()
    run.start_metrics(resumed_step)
    for row in rows:
        run.write_metrics(row["step"], {key: value for key, value in row.items() if key != "step"})
    run.close()


def test_metrics_are_one_json_object_a_line_readable_while_the_run_goes_on(tmp_path: Path):
    run = RunFolder(tmp_path)
    run.open()
    run.start_metrics(0)
    run.write_metrics(1, {"loss": 0.1 + 0.2, "skipped": False})
    assert list(read_metrics(tmp_path / METRICS)) == [
        {"step": 1, "loss": 0.30000000000000004, "skipped": False}
    ]
    run.close()


def test_a_number_that_is_not_finite_is_null_because_json_has_none(tmp_path: Path):
    write_rows(RunFolder(tmp_path), 0, [{"step": 1, "loss": float("nan"), "norm": float("inf"), "x": 1.0}])

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is no JSON")

    row = json.loads((tmp_path / METRICS).read_text(), parse_constant=refuse)
    assert row == {"step": 1, "loss": None, "norm": None, "x": 1.0}


@pytest.mark.parametrize("torn", ["", '{"step": 5, "lo', '{"step": 5, "loss": 1.0', "\x00\x00\x00\x00"])
def test_resuming_drops_later_steps_and_a_torn_last_line(tmp_path: Path, torn: str):
    rows = [{"step": step, "loss": step / 3} for step in range(1, 5)]
    write_rows(RunFolder(tmp_path), 0, rows)
    with (tmp_path / METRICS).open("a") as stream:
        stream.write(torn)
    assert list(read_metrics(tmp_path / METRICS)) == rows
    write_rows(RunFolder(tmp_path), 2, [{"step": 3, "loss": 9.0}])
    assert list(read_metrics(tmp_path / METRICS)) == [*rows[:2], {"step": 3, "loss": 9.0}]


@pytest.mark.parametrize(
    "torn", [b'{"step": 3, "lo', b"\xff\xfe", b"[1]", b"5", b'{"loss": 1}', b"[" * 100_000]
)
def test_a_torn_line_in_the_middle_costs_no_other_line(tmp_path: Path, torn: bytes):
    rows = [{"step": step, "loss": step / 3} for step in range(1, 5)]
    write_rows(RunFolder(tmp_path), 0, rows[:2])
    with (tmp_path / METRICS).open("ab") as stream:
        stream.write(torn + b"\n" + "".join(json.dumps(row) + "\n" for row in rows[2:]).encode())
    write_rows(RunFolder(tmp_path), 4, [])
    assert list(read_metrics(tmp_path / METRICS)) == rows


def test_both_lines_of_the_resumed_step_stay(tmp_path: Path):
    rows = [{"step": 1, "loss": 1.0}, {"step": 1, "heldout_loss": 2.0}, {"step": 2, "loss": 0.5}]
    write_rows(RunFolder(tmp_path), 0, rows)
    write_rows(RunFolder(tmp_path), 1, [])
    assert list(read_metrics(tmp_path / METRICS)) == rows[:2]


def make_run(folder: Path, state: str, rows: list[dict], settings: str = "") -> Path:
    run = RunFolder(folder)
    write_rows(run, 0, rows)
    run.set_status(state, 7)
    (folder / "config.toml").write_text(settings)
    return folder


def test_a_summary_has_the_newest_of_each_number(tmp_path: Path):
    rows = [
        {"step": 1, "loss": 3.0, "tokens": 100, "tokens_per_second": 10.0, "joules": 5.0},
        {"step": 1, "heldout_bits_per_byte": 2.5},
        {"step": 2, "loss": 2.0, "tokens": 200, "tokens_per_second": 11.0, "joules": 9.0},
    ]
    folder = make_run(tmp_path / "a", "stopped", rows)
    assert summarise(folder) == RunSummary("a", "stopped", 2, 200, 2.0, 2.5, 11.0, 9.0)


def test_a_run_without_metrics_is_known_by_its_status(tmp_path: Path):
    folder = make_run(tmp_path / "a", "failed", [])
    assert summarise(folder) == RunSummary("a", "failed", 7, None, None, None, None, None)


def test_a_summary_changes_nothing_in_the_folder(tmp_path: Path):
    folder = make_run(tmp_path / "a", "running", [{"step": 1, "loss": 1.0}])
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert summarise(folder).state == "killed"
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_runs_are_found_by_name_among_other_folders(tmp_path: Path, monkeypatch):
    for name in ("b", "a"):
        make_run(tmp_path / name, "finished", [])
    (tmp_path / "other").mkdir()
    (tmp_path / "file").write_text("")
    assert find_runs(tmp_path) == [tmp_path / "a", tmp_path / "b"]
    assert find_runs(tmp_path / "b") == [tmp_path / "b"]
    assert find_runs(tmp_path / "other") == []
    monkeypatch.chdir(tmp_path / "b")
    assert summarise(find_runs(Path())[0]).name == "b"


def test_what_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(RunError, match="does not exist"):
        find_runs(tmp_path / "nothing")
    with pytest.raises(RunError, match="is not a run folder"):
        summarise(tmp_path)
    (tmp_path / "status.json").write_text("{")
    with pytest.raises(RunError, match="not readable JSON"):
        summarise(tmp_path)
    for status in ("[]", "{}", '{"state": 5, "step": 1}', '{"state": "finished", "step": "x"}'):
        (tmp_path / "status.json").write_text(status)
        with pytest.raises(RunError, match="not the status of a run"):
            summarise(tmp_path)


def test_what_is_no_number_is_not_shown_as_one(tmp_path: Path):
    folder = make_run(tmp_path / "a", "finished", [{"step": 1, "loss": "low", "tokens": 5}])
    assert summarise(folder) == RunSummary("a", "finished", 1, 5, None, None, None, None)


def test_differing_settings_are_those_that_differ(tmp_path: Path):
    make_run(tmp_path / "a", "finished", [], "seed = 1\n[model]\ndim = 8\nheads = 2\n")
    make_run(tmp_path / "b", "finished", [], "seed = 1\n[model]\ndim = 16\nheads = 2\ntied = true\n")
    found = differing_settings([tmp_path / "a", tmp_path / "b"])
    assert found == {"model.dim": [8, 16], "model.tied": [None, True]}
    assert differing_settings([tmp_path / "a"]) == {}
    assert differing_settings([]) == {}


def test_settings_that_cannot_be_read_are_named(tmp_path: Path):
    make_run(tmp_path / "a", "finished", [], "= =")
    with pytest.raises(RunError, match=r"a/config\.toml"):
        differing_settings([tmp_path / "a"])


def test_a_status_has_its_time_and_details(tmp_path: Path):
    run = RunFolder(tmp_path)
    before = time.time()
    run.set_status("failed", 3, error="NumericsError: x")
    status = json.loads((tmp_path / "status.json").read_text())
    assert before <= status.pop("time") <= time.time()
    assert status == {"state": "failed", "step": 3, "error": "NumericsError: x"}
