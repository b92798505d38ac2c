"""Run a function on several gloo ranks, each its own process, and get its results back.

`run_ranks(function, 2, argument)` calls `function(mesh, argument)` on ranks 0 and 1 and returns the list of
results. The function must be importable (module level). Children that outlive the timeout are killed, and
a failing rank's traceback is the message of the AssertionError. Ranks are forked from a server process that
has imported torch once, so a rank starts in a fraction of a second.
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
from pathlib import Path
from typing import Any

PRELOADED = ["torch.distributed.fsdp", "criadero.parallel.parallelize", "criadero.checkpoint.save"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_ranks(
    function: Callable[..., Any], world_size: int, *args: Any, timeout: float = 60, **parallel: Any
) -> list[Any]:
    """Call `function(mesh, *args)` on every rank; `parallel` are options of ParallelConfig."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    answers = context.Queue()
    where = (Path(sys.modules[function.__module__].__file__ or ""), function.__qualname__)
    address = f"127.0.0.1:{free_port()}"
    processes = [
        context.Process(target=_rank, args=(rank, world_size, address, where, args, parallel, answers))
        for rank in range(world_size)
    ]
    try:
        for process in processes:
            process.start()
        results = _collect(processes, answers, deadline=time.monotonic() + timeout)
        for process in processes:
            process.join(10)
        codes = [process.exitcode for process in processes]
        assert codes == [0] * world_size, f"exit codes {codes}"
        return results
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
            process.join()
        answers.close()


def _collect(processes: list[Any], answers: Any, *, deadline: float) -> list[Any]:
    results: dict[int, Any] = {}
    failures: dict[int, str] = {}
    while len(results) + len(failures) < len(processes):
        if failures:
            deadline = min(deadline, time.monotonic() + 3)
        try:
            rank, failure, value = answers.get(timeout=0.2)
        except queue.Empty:
            silent = [r for r in range(len(processes)) if r not in results and r not in failures]
            dead = [r for r in silent if processes[r].exitcode is not None]
            if time.monotonic() > deadline or (dead and not failures and answers.empty()):
                failures.update(
                    {r: f"no answer, exit code {processes[r].exitcode}" for r in (dead or silent)}
                )
                break
            continue
        if failure is None:
            results[rank] = value
        else:
            failures[rank] = failure
    text = "\n".join(f"rank {rank} failed:\n{failure}" for rank, failure in sorted(failures.items()))
    assert not failures, text
    return [results[rank] for rank in range(len(processes))]


def _rank(
    rank: int, world_size: int, address: str, where: Any, args: Any, parallel: Any, answers: Any
) -> None:
    import torch

    from criadero.parallel.config import ParallelConfig
    from criadero.parallel.launch import Launch, distributed
    from criadero.parallel.mesh import build_mesh

    torch.set_num_threads(1)
    launch = Launch(rank, rank, world_size, address)
    try:
        function = _import(*where)
        with distributed(launch, torch.device("cpu"), timeout_seconds=30) as device:
            mesh = build_mesh(ParallelConfig(**parallel), device, timeout_seconds=30)
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
