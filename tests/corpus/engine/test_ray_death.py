"""When Ray itself dies, or was never there: another one is started, or one clear error says so."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

import descendants
import engine_program
from criadero.corpus.engine import ray_executor
from criadero.corpus.engine.executor import Inline
from criadero.corpus.engine.ray_executor import RayExecutor, _job_config
from criadero.corpus.engine.run import run_source
from criadero.errors import ResourceError, StoppedEarly
from ranks import free_port

from .test_resume import result_of

pytestmark = pytest.mark.xdist_group("ray")


def test_a_dead_ray_is_replaced_and_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    recipe = engine_program.recipe(seconds=0.02)
    run_source("made", recipe, tmp_path / "inline", executor=Inline())
    out = tmp_path / "ray"

    def kill_raylet() -> None:
        while not any(out.glob("work/made/cursors/*")):
            time.sleep(0.01)
        (raylet,) = (p for p in descendants.descendants() if "/raylet/raylet " in descendants.title(p))
        os.kill(raylet, signal.SIGKILL)

    killer = threading.Thread(target=kill_raylet)
    killer.start()
    with RayExecutor(2) as executor:
        run_source("made", recipe, out, executor=executor)
    killer.join()
    assert "starting another" in caplog.text
    assert result_of(out) == result_of(tmp_path / "inline")
    assert not [p for p in descendants.descendants() if "ray" in descendants.title(p).split(" ")[0]]


def test_a_worker_killed_as_it_starts_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(ray_executor, "_BEGIN_SECONDS", 10.0)  # a busy machine takes several to start
    recipe = engine_program.recipe()
    run_source("made", recipe, tmp_path / "inline", executor=Inline())
    over = threading.Event()

    def kill_starting() -> None:
        killed = 0
        while not over.wait(0.01) and killed < 2:
            for process in descendants.descendants():
                program, _, arguments = descendants.title(process).partition(" ")
                if Path(program).name.startswith("python") and "default_worker.py" in arguments:
                    os.kill(process, signal.SIGKILL)
                    killed += 1

    killer = threading.Thread(target=kill_starting)
    killer.start()
    try:
        with RayExecutor(1) as executor:
            run_source("made", recipe, tmp_path / "ray", executor=executor)
    finally:
        over.set()
        killer.join()
    assert "starting another" in caplog.text
    assert result_of(tmp_path / "ray") == result_of(tmp_path / "inline")


def test_a_cluster_that_is_not_there_is_an_error_within_seconds(tmp_path: Path):
    begun = time.monotonic()
    with (
        RayExecutor(2, address=f"127.0.0.1:{free_port()}") as executor,
        pytest.raises(ResourceError, match="no Ray cluster answers at 127") as caught,
    ):
        run_source("made", engine_program.recipe(), tmp_path, executor=executor)
    assert "RAY_ADDRESS" in str(caught.value)
    assert time.monotonic() < begun + 5


def test_sigterm_while_ray_starts_stops_the_run_in_order(tmp_path: Path):
    received: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, _frame: received.append(number))

    def terminate() -> None:
        while not any("gcs_server" in descendants.title(p) for p in descendants.descendants()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=terminate)
    sender.start()
    try:
        with RayExecutor(1) as executor, pytest.raises(StoppedEarly):
            run_source(
                "made", engine_program.recipe(0.02), tmp_path, executor=executor, stop=lambda: bool(received)
            )
    finally:
        sender.join()
        signal.signal(signal.SIGTERM, previous)


def test_workers_look_for_modules_in_the_order_of_the_driver():
    found: list[str] = []
    for folder in _job_config()._py_driver_sys_path:
        found.insert(0, folder)  # as Ray's worker does
    assert found == sys.path
