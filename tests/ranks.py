"""Run a function on several gloo ranks, each its own process, and get its results back.

`run_ranks(function, 2, argument)` calls `function(mesh, argument)` on ranks 0 and 1 and returns the list of
results; `run_until_end` does the same and returns how each rank ended, for tests of ranks that die. The
function must be at module level. Children that outlive the timeout are killed, and a failing rank's
traceback is the message of the AssertionError. Ranks are forked from a server process that has imported
torch once, so a rank starts in a fraction of a second.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import queue
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PRELOADED = [
    "torch._dynamo",  # FSDP imports it at the first forward
    "torch.distributed.fsdp",
    "criadero.parallel.parallelize",
    "criadero.checkpoint.save",
    "criadero.train.loop",
    "criadero.cli.app",
    "criadero.report.loss_curve",
    "matplotlib.figure",
]


@dataclass
class Outcome:
    """How a rank ended: the function's value, or the traceback; negative exit codes are signals."""

    value: Any = None
    failure: str | None = "no answer"
    exit_code: int | None = None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_ranks(
    function: Callable[..., Any], world_size: int, *args: Any, timeout: float = 60, **parallel: Any
) -> list[Any]:
    """Call `function(mesh, *args)` on every rank; `parallel` are options of ParallelConfig."""
    outcomes = run_until_end(function, world_size, *args, timeout=timeout, **parallel)
    failures = [
        f"rank {rank} (exit code {outcome.exit_code}):\n{outcome.failure}"
        for rank, outcome in enumerate(outcomes)
        if outcome.failure is not None or outcome.exit_code != 0
    ]
    assert not failures, "\n".join(failures)
    return [outcome.value for outcome in outcomes]


def run_until_end(
    function: Callable[..., Any],
    world_size: int,
    *args: Any,
    timeout: float = 60,
    collective_seconds: float = 30,
    hang_report: Path | None = None,
    **parallel: Any,
) -> list[Outcome]:
    """Call `function(mesh, *args)` on every rank and wait until all processes have ended."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    answers = context.Queue()
    where = (Path(sys.modules[function.__module__].__file__ or ""), function.__qualname__)
    address = f"127.0.0.1:{free_port()}"
    waits = {"timeout_seconds": collective_seconds, "hang_report": hang_report}
    processes = [
        context.Process(
            target=_rank,
            args=(rank, world_size, address, where, args, parallel, waits, answers),
        )
        for rank in range(world_size)
    ]
    outcomes = [Outcome() for _ in processes]
    try:
        for process in processes:
            process.start()
        _collect(outcomes, processes, answers, deadline=time.monotonic() + timeout)
    finally:
        for process, outcome in zip(processes, outcomes, strict=True):
            if process.is_alive():
                process.kill()
            process.join()
            outcome.exit_code = process.exitcode
        answers.close()
    return outcomes


def _collect(outcomes: list[Outcome], processes: list[Any], answers: Any, *, deadline: float) -> None:
    """Take answers until every process has ended and the queue is empty, or time is up."""
    while time.monotonic() < deadline:
        running = any(process.is_alive() for process in processes)
        try:
            rank, failure, value = answers.get(timeout=0.1)
            outcomes[rank].failure, outcomes[rank].value = failure, value
        except queue.Empty:
            if not running:
                return


def _rank(
    rank: int,
    world_size: int,
    address: str,
    where: Any,
    args: Any,
    parallel: Any,
    waits: dict[str, Any],
    answers: Any,
) -> None:
    import torch

    from criadero.parallel.config import ParallelConfig
    from criadero.parallel.launch import Launch, distributed
    from criadero.parallel.mesh import build_mesh

    torch.set_num_threads(1)
    launch = Launch(rank, rank, world_size, address)
    try:
        function = _import(*where)
        with distributed(launch, torch.device("cpu"), **waits) as device:
            mesh = build_mesh(ParallelConfig(**parallel), device, timeout_seconds=waits["timeout_seconds"])
            value = function(mesh, *args)
            del mesh
        answers.put((rank, None, value))
    except BaseException:
        answers.put((rank, traceback.format_exc(), None))


def _import(path: Path, name: str) -> Any:
    """Import a test module by its path: test folders are no packages."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(Path(__file__).parent))
    spec.loader.exec_module(module)
    return getattr(module, name)
