"""The engine on Ray: the same bytes as in one process, whatever happens to workers, nodes and the driver."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import descendants
import engine_program
import engine_recipes
from criadero.corpus.engine.config import EngineConfig
from criadero.corpus.engine.executor import Inline
from criadero.corpus.engine.ray_executor import RayExecutor, _remove_leftovers
from criadero.corpus.engine.run import SourceResult, run_source
from criadero.corpus.engine.stage import Each, Read, Recipe
from criadero.errors import DataError, StoppedEarly

from .test_resume import result_of

pytestmark = pytest.mark.xdist_group("ray")


@pytest.fixture(scope="module")
def two_workers() -> Iterator[RayExecutor]:
    on_term = signal.getsignal(signal.SIGTERM)
    with RayExecutor(2) as executor:
        yield executor
    assert signal.getsignal(signal.SIGTERM) == on_term
    assert list(Path("/tmp").glob(f"criadero-{os.getpid()}-*")) == []
    assert workers_of_ray() == []


def run(recipe: Recipe, out: Path, executor, **settings) -> SourceResult:
    limits = {"memory_bytes": 600 << 20, **settings}
    return run_source("made", recipe, out, executor=executor, settings=EngineConfig(**limits))


def without(recipe: Recipe, out: Path, left_out: set[str]) -> list[dict]:
    """The documents of an undisturbed run whose input never had some."""
    read = recipe[0]
    settings = {"documents": 50, "without": sorted(left_out)}
    clean = (Read(read.splits, engine_recipes.make_reader, settings), *recipe[1:])
    run(clean, out, Inline())
    return documents(out)


def documents(out: Path) -> list[dict]:
    parts = sorted((out / "documents" / "made").glob("*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def test_two_workers_and_one_process_write_the_same_bytes(tmp_path: Path, two_workers: RayExecutor):
    recipe = engine_recipes.recipe(reader={"bad_every": 9}, harm={"s1:3": "raise"})
    run(recipe, tmp_path / "inline", Inline())
    run(recipe, tmp_path / "ray", two_workers)
    assert result_of(tmp_path / "ray") == result_of(tmp_path / "inline")


@pytest.mark.parametrize("harm", ["kill", "hang", "memory"])
def test_exactly_the_document_that_kills_or_blocks_its_worker_is_set_aside(
    harm: str, tmp_path: Path, two_workers: RayExecutor
):
    recipe = engine_recipes.recipe(harm={"s2:17": harm})
    result = run(recipe, tmp_path / "ray", two_workers, document_seconds=1)
    (guilty,) = result.set_aside
    assert (guilty["id"], guilty["index"], guilty["split"]) == ("s2:17", 17, "s2")
    assert guilty["begins"] == engine_recipes.text_of(117)[:100]
    assert documents(tmp_path / "ray") == without(engine_recipes.recipe(), tmp_path / "clean", {"s2:17"})
    (line,) = (tmp_path / "ray" / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(line) == guilty
    rows = pq.read_table(tmp_path / "ray" / "ledger" / "made").to_pylist()
    story = [(r["stage"], r["outcome"], r["reason"]) for r in rows if r["id"] == "s2:17"]
    assert story == [("read", "kept", ""), ("harmful", "dropped", "quarantined")]
    assert ("ran out of memory" in guilty["detail"]) == (harm == "memory")


@pytest.mark.parametrize("harm", ["hang", "raise"])
def test_a_reader_that_cannot_go_on_costs_the_rest_of_its_split(
    harm: str, tmp_path: Path, two_workers: RayExecutor
):
    recipe = engine_recipes.recipe(reader={"harm": harm, "at": 20})
    result = run(recipe, tmp_path / "ray", two_workers, document_seconds=1)
    assert result.left_out["reader_died"] == 1
    assert result.documents_in == 50 + 20 + 1 + 50 + 50
    lost = {f"s1:{number}" for number in range(20, 50)}
    assert documents(tmp_path / "ray") == without(engine_recipes.recipe(), tmp_path / "clean", lost)
    (bad,) = [r for r in pq.read_table(tmp_path / "ray/ledger/made").to_pylist() if r["outcome"] == "bad"]
    assert (bad["id"], bad["split"], bad["reason"]) == ("record 20", 1, "reader_died")


def test_a_stage_that_cannot_start_is_an_error_and_not_tried_for_ever(
    tmp_path: Path, two_workers: RayExecutor
):
    recipe = (
        Read(engine_recipes.splits(1), engine_recipes.make_reader),
        Each("x", engine_recipes.make_missing),
    )
    with pytest.raises(DataError, match="no such model"):
        run(recipe, tmp_path, two_workers)


def workers_of_ray() -> list[int]:
    """The processes that run a task this moment."""
    return [p for p in descendants.descendants() if "ray::_perform" in descendants.title(p)]


def test_workers_killed_at_random_moments_change_nothing(tmp_path: Path, two_workers: RayExecutor):
    recipe = engine_program.recipe(seconds=0.01)
    run(recipe, tmp_path / "inline", Inline())
    killed, over = 0, threading.Event()
    chance = random.Random(7)

    def kill_some() -> None:
        nonlocal killed
        while not over.wait(chance.uniform(0.1, 0.5)) and killed < 6:
            for worker in workers_of_ray()[:1]:
                os.kill(worker, signal.SIGKILL)
                killed += 1

    killer = threading.Thread(target=kill_some)
    killer.start()
    try:
        run(recipe, tmp_path / "ray", two_workers)
    finally:
        over.set()
        killer.join()
    assert killed >= 2
    assert result_of(tmp_path / "ray") == result_of(tmp_path / "inline")


def test_a_worker_that_is_stopped_and_cannot_even_end_is_replaced(
    tmp_path: Path, two_workers: RayExecutor, caplog: pytest.LogCaptureFixture
):
    recipe = engine_program.recipe(seconds=0.02)
    run(recipe, tmp_path / "inline", Inline())
    stopped: list[int] = []

    def stop_one() -> None:
        while not (working := workers_of_ray()):
            time.sleep(0.01)
        stopped.append(working[0])
        os.kill(stopped[0], signal.SIGSTOP)

    stopper = threading.Thread(target=stop_one)
    stopper.start()
    run(recipe, tmp_path / "ray", two_workers, document_seconds=0.5)
    stopper.join()
    assert "no end after" in caplog.text
    assert result_of(tmp_path / "ray") == result_of(tmp_path / "inline")
    assert not Path(f"/proc/{stopped[0]}").exists()


def test_asking_to_stop_ends_running_tasks_at_once(tmp_path: Path, two_workers: RayExecutor):
    recipe = engine_recipes.recipe(harm={"s0:0": "hang", "s1:0": "hang"})
    begun = time.monotonic()
    with pytest.raises(StoppedEarly):
        run_source("made", recipe, tmp_path, executor=two_workers, stop=lambda: time.monotonic() > begun + 1)
    assert time.monotonic() < begun + 8


def test_ray_listens_on_loopback_alone_and_says_nothing(two_workers: RayExecutor, capfd):
    assert two_workers.workers == 2
    addresses = descendants.listening([os.getpid(), *descendants.descendants()])
    assert addresses == {"127.0.0.1"}
    assert capfd.readouterr() == ("", "")


def test_a_driver_killed_in_the_middle_leaves_what_another_executor_goes_on_from(
    tmp_path: Path, two_workers: RayExecutor
):
    recipe = engine_program.recipe(0.02)
    run(recipe, tmp_path / "undisturbed", Inline())
    out = tmp_path / "out"
    command = [sys.executable, engine_program.__file__, str(out), "ray", "0.02"]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE)
    while driver.poll() is None and not list((out / "work").glob("made/*/ledger.parquet")):
        time.sleep(0.05)
    driver.kill()
    printed, _ = driver.communicate()
    assert (driver.returncode, printed) == (-9, b"")
    run(recipe, out, Inline())
    assert result_of(out) == result_of(tmp_path / "undisturbed")
    _remove_leftovers()
    assert not list(Path("/tmp").glob(f"criadero-{driver.pid}-*"))
    assert list(Path("/tmp").glob(f"criadero-{os.getpid()}-*"))
