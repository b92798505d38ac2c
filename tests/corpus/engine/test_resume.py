"""A build that ended at any moment goes on where it stopped, and ends with the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import engine_program
import engine_recipes
from criadero import files
from criadero.corpus.engine.cursor import Cursor
from criadero.corpus.engine.executor import Ended, Inline
from criadero.corpus.engine.journal import Journal
from criadero.corpus.engine.run import run_source
from criadero.corpus.engine.stage import Each, Exchange, Read, Split
from criadero.corpus.engine.tasks import Task
from criadero.errors import DataError, ResourceError, RunError
from criadero.runs import RunLock

PROGRAM = Path(engine_program.__file__)


def result_of(out: Path) -> dict[str, str]:
    """The sha256 of every finished file, and what the manifest says besides the version of the code."""
    found = [p for name in ("documents", "ledger") for p in (out / name).rglob("*.parquet")]
    sums = {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}
    manifest = json.loads((out / "documents" / "made" / "manifest.json").read_text())
    return sums | {"manifest": str({k: v for k, v in manifest.items() if k not in {"key", "code"}})}


def program(out: Path, mode: str, value: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), str(out), mode, str(value)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("undisturbed")
    run_source("made", engine_program.recipe(), out, executor=Inline())
    return result_of(out)


def test_kills_at_every_kind_of_moment_end_in_the_same_bytes(tmp_path: Path, undisturbed: dict[str, str]):
    deaths = 0
    # Each try gets some moments further; it dies in tasks, between them, in the journal, in the last renames.
    for moment in range(2, 40, 3):
        done = program(tmp_path, "inline", moment)
        deaths += done.returncode == -9
        if done.returncode == 0:
            break
    assert deaths >= 4
    assert done.returncode == 0, done.stderr
    assert result_of(tmp_path) == undisturbed
    assert not (tmp_path / "work" / "made").exists()
    assert len((tmp_path / "quarantine.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("moments_before_the_end", [1, 2, 3, 5, 8])
def test_a_kill_while_the_result_appears_leaves_all_of_it_or_none(
    tmp_path: Path, undisturbed: dict[str, str], moments_before_the_end: int, monkeypatch: pytest.MonkeyPatch
):
    class Killed(BaseException):
        pass

    names: list[str] = []
    monkeypatch.setattr(files, "on_fault_point", names.append)
    run_source("made", engine_program.recipe(), tmp_path / "counted", executor=Inline())
    left = len(names) - moments_before_the_end

    def die(_name: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    monkeypatch.setattr(files, "on_fault_point", die)
    out = tmp_path / "out"
    with pytest.raises(Killed):
        run_source("made", engine_program.recipe(), out, executor=Inline())
    assert not (out / "documents" / "made").exists() or result_of(out) == undisturbed
    monkeypatch.setattr(files, "on_fault_point", None)
    run_source("made", engine_program.recipe(), out, executor=Inline())
    assert result_of(out) == undisturbed


def run_counting(recipe, out: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many tasks a run committed."""
    names: list[str] = []
    monkeypatch.setattr(files, "on_fault_point", names.append)
    run_source("made", recipe, out, executor=Inline())
    monkeypatch.setattr(files, "on_fault_point", None)
    return names.count("task-committed")


def run_cut_off(recipe, out: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many tasks a run committed that ended before its result appeared."""

    def stop_here(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        names: list[str] = []
        patched.setattr(files, "on_fault_point", names.append)
        patched.setattr("criadero.corpus.engine.run.publish", stop_here)
        with pytest.raises(KeyboardInterrupt):
            run_source("made", recipe, out, executor=Inline())
    return names.count("task-committed")


def test_what_is_finished_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert run_counting(engine_program.recipe(), tmp_path, monkeypatch) == 9
    before = result_of(tmp_path)
    assert run_counting(engine_program.recipe(), tmp_path, monkeypatch) == 0
    assert result_of(tmp_path) == before


def test_a_missing_part_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run_counting(engine_program.recipe(), tmp_path, monkeypatch)
    before = result_of(tmp_path)
    (tmp_path / "documents" / "made" / "part-00002.parquet").unlink()
    assert run_counting(engine_program.recipe(), tmp_path, monkeypatch) == 9
    assert result_of(tmp_path) == before


def make_file_reader():
    def read(split: Split):
        for number, line in enumerate(Path(split.path).read_text().splitlines()):
            yield engine_recipes.Document(f"{split.name}:{number}", line, "made")

    return read


def make_suffix(*, suffix: str, table: str = "", folder: str = ""):
    return lambda document: document.with_text(document.text + suffix)


def test_only_what_depends_on_a_change_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    inputs = [tmp_path / f"{name}.txt" for name in "abc"]
    table = tmp_path / "table"
    for path in [*inputs, table]:
        path.write_text(f"{path.name}\n")

    def recipe(suffix: str = "!"):
        read = Read(tuple(Split(path.name, str(path)) for path in inputs), make_file_reader)
        return (read, Each("suffix", make_suffix, {"suffix": suffix}, files=(table,)))

    def tasks(suffix: str = "!") -> int:
        """Tasks run by a build that is cut off before its work is removed."""
        return run_cut_off(recipe(suffix), tmp_path / "out", monkeypatch)

    assert tasks() == 3
    assert tasks() == 0
    inputs[1].write_text("another text\n")
    assert tasks() == 1
    os.utime(inputs[0])
    assert tasks() == 0
    assert tasks(suffix="?") == 3
    table.write_text("another table\n")
    assert tasks(suffix="?") == 3
    monkeypatch.setattr("criadero.corpus.engine.keys.code_version", lambda: "another version")
    assert tasks(suffix="?") == 3


def test_a_model_that_is_the_same_elsewhere_is_the_same(tmp_path: Path):
    results = []
    for place in (tmp_path / "here", tmp_path / "there"):
        place.mkdir()
        table = place / "table"
        table.write_text("the same")
        values = {"suffix": "!", "table": str(table), "folder": str(place)}
        recipe = (
            Read(engine_recipes.splits(1), engine_recipes.make_reader),
            Each("suffix", make_suffix, values, files=(table,)),
        )
        results.append(run_source("made", recipe, place / "out", executor=Inline()).key)
    assert results[0] == results[1]


def test_a_split_put_in_front_of_others_is_no_reason_to_mix_them_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def recipe(first: int):
        read = Read(engine_recipes.splits(4)[first:], engine_recipes.make_reader)
        return (read, Exchange("lines", engine_recipes.LineDedup))

    run_cut_off(recipe(1), tmp_path / "moved", monkeypatch)
    for name in ("moved", "fresh"):
        run_source("made", recipe(0), tmp_path / name, executor=Inline())
    assert result_of(tmp_path / "moved") == result_of(tmp_path / "fresh")


def test_documents_never_stand_beside_the_ledger_of_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, str]
):
    other = (Read(engine_recipes.splits(4), engine_recipes.make_reader, {"documents": 10}),)
    run_source("made", engine_program.recipe(), tmp_path, executor=Inline())

    def die(name: str) -> None:
        if name == "folder-renamed" and len(list((tmp_path / "ledger" / "made").glob("*"))) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(files, "on_fault_point", die)
        with pytest.raises(KeyboardInterrupt):
            run_source("made", other, tmp_path, executor=Inline())
    run_source("made", engine_program.recipe(), tmp_path, executor=Inline())
    assert result_of(tmp_path) == undisturbed


class AlwaysDies:
    """An executor whose workers die, each at another record."""

    workers = 1

    def __init__(self) -> None:
        self.deaths = 0
        self.waiting: list[Task] = []

    def submit(self, task: Task) -> None:
        self.waiting.append(task)

    def ended(self, tick) -> list[Ended]:
        tick()
        if not self.waiting:
            return []
        task = self.waiting.pop()
        self.deaths += 1
        Cursor(task.cursor).set(self.deaths, 1)
        return [Ended(task)]

    def kill(self, task: Task) -> None:
        """All are dead."""


def test_workers_that_die_at_another_record_each_time_are_an_error_and_not_tried_for_ever(tmp_path: Path):
    executor = AlwaysDies()
    with pytest.raises(DataError, match="the worker died 25 times, at different records"):
        run_source("made", engine_recipes.recipe(), tmp_path, executor=executor)
    assert executor.deaths == 25


def test_hashes_of_inputs_outlive_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text(str(number))
    paths = [str(path) for path in tmp_path.glob("*.txt")]

    def stop() -> None:
        raise KeyboardInterrupt

    with closing(Journal(tmp_path)) as journal, pytest.raises(KeyboardInterrupt):
        journal.input_hashes(paths, tick=stop)
    hashed: list[Path] = []
    monkeypatch.setattr(files, "sha256_file", lambda path: hashed.append(path) or path.name)
    with closing(Journal(tmp_path)) as journal:
        found = journal.input_hashes(paths, tick=lambda: None)
    assert len(hashed) == 4
    assert len(set(found.values())) == 5


def test_a_file_replaced_by_one_of_equal_size_and_time_is_hashed_again(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("one")
    os.utime(path, ns=(0, 0))
    with closing(Journal(tmp_path)) as journal:
        before = journal.input_hashes([str(path)], tick=lambda: None)
        path.write_text("two")
        os.utime(path, ns=(0, 0))
        assert journal.input_hashes([str(path)], tick=lambda: None) != before


def test_a_torn_line_of_the_journal_costs_its_task_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = engine_program.recipe()
    run_cut_off(recipe, tmp_path, monkeypatch)
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    assert run_counting(recipe, tmp_path, monkeypatch) == 1
    lines = journal.read_text().splitlines()
    assert sum(1 for line in lines if not is_json(line)) == 1


def is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def test_two_builds_cannot_write_one_folder(tmp_path: Path):
    lock = RunLock(tmp_path)
    lock.acquire()
    with pytest.raises(RunError, match="is being written by"):
        run_source("made", engine_recipes.recipe(), tmp_path, executor=Inline())
    lock.release()
    run_source("made", engine_recipes.recipe(), tmp_path, executor=Inline())


def test_a_full_disk_is_one_clear_error_and_the_next_run_goes_on(tmp_path: Path):
    for limit_bytes in (1000, 20_000):
        done = program(tmp_path, "full", limit_bytes)
        kind, text = json.loads(done.stdout)
        assert kind == "ResourceError", text
        assert "goes on where this one stopped" in text
    assert program(tmp_path, "full", 1 << 40).stdout == ""
    assert (tmp_path / "documents" / "made" / "manifest.json").exists()


def test_a_disk_that_fills_while_a_task_writes_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("criadero.corpus.engine.documents.DocumentWriter.flush", full)
        with pytest.raises(ResourceError):
            run_source("made", engine_recipes.recipe(), tmp_path, executor=Inline())
    run_source("made", engine_recipes.recipe(), tmp_path, executor=Inline())


def test_memory_stays_flat_when_the_input_grows_fourfold(tmp_path: Path):
    small = int(program(tmp_path / "small", "memory", 5_000).stdout)
    large = int(program(tmp_path / "large", "memory", 20_000).stdout)
    assert large < 1.15 * small
