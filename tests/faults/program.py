"""Run the program and see how it ends: `run` to its end, `start` to send signals on the way.

By default a process is forked from a server that has imported torch once and then calls the program's
`main`, which costs a fifth of a real start; `real=True` starts `python -m criadero` instead.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from faults import driver
from ranks import PRELOADED, free_port

Plan = Mapping[str, Mapping[str, Any]]
_REAL = [sys.executable, "-m", "criadero"]
_WITH_FAULTS = [sys.executable, str(Path(driver.__file__))]


@dataclass(frozen=True)
class Ended:
    """How a process ended: exit code (negative: the signal that killed it), stdout, stderr, duration."""

    code: int
    out: str
    err: str
    seconds: float


class Program:
    """A started process; leaving the `with` block kills it if it still runs."""

    def __init__(
        self,
        arguments: Sequence[str | Path],
        *,
        plan: Plan,
        environ: Mapping[str, str],
        log: Path,
        real: bool,
    ) -> None:
        self._out, self._err = log.with_suffix(".out"), log.with_suffix(".err")
        self._started = time.monotonic()
        words = [str(word) for word in arguments]
        self._process: Any
        if real:
            environ = {**os.environ, "OMP_NUM_THREADS": "1", **environ, "CRIADERO_FAULTS": json.dumps(plan)}
            with self._out.open("wb") as out, self._err.open("wb") as err:
                command = [*(_WITH_FAULTS if plan else _REAL), *words]
                self._process = subprocess.Popen(command, env=environ, stdout=out, stderr=err)
        else:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(PRELOADED)
            arguments = (words, plan, dict(environ), self._out, self._err)
            self._process = context.Process(target=_forked, args=arguments)
            self._process.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._poll() is None:
            self._process.kill()
        self._wait(None)

    @property
    def err(self) -> str:
        """What it has written to stderr so far."""
        return self._err.read_text() if self._err.exists() else ""

    @property
    def pid(self) -> int:
        return int(self._process.pid)

    def send(self, number: int) -> None:
        """Send a signal."""
        os.kill(self._process.pid, number)

    def wait_for(self, text: str, *, timeout: float = 60) -> None:
        """Wait until stderr contains `text`."""
        deadline = time.monotonic() + timeout
        while text not in self.err:
            assert self._poll() is None, f"ended without {text!r}:\n{self.err}"
            assert time.monotonic() < deadline, f"no {text!r} within {timeout} s:\n{self.err}"
            time.sleep(0.01)

    def end(self, *, timeout: float = 90) -> Ended:
        """Wait for the end."""
        self._wait(timeout)
        code = self._poll()
        assert code is not None, f"still running after {timeout} s:\n{self.err}"
        return Ended(code, self._out.read_text(), self.err, time.monotonic() - self._started)

    def _poll(self) -> int | None:
        if isinstance(self._process, subprocess.Popen):
            return self._process.poll()
        return self._process.exitcode

    def _wait(self, timeout: float | None) -> None:
        if isinstance(self._process, subprocess.Popen):
            self._process.wait(timeout)
        else:
            self._process.join(timeout)


def start(
    *arguments: str | Path,
    folder: Path,
    plan: Plan | None = None,
    environ: Mapping[str, str] | None = None,
    name: str = "program",
    real: bool = False,
) -> Program:
    """Start the program; its output goes to `folder/NAME.out` and `.err`."""
    return Program(arguments, plan=plan or {}, environ=environ or {}, log=folder / name, real=real)


def run(*arguments: str | Path, timeout: float = 90, **options: Any) -> Ended:
    """Run the program to its end; options as `start`."""
    with start(*arguments, **options) as program:
        return program.end(timeout=timeout)


def run_on_ranks(
    world_size: int,
    *arguments: str | Path,
    folder: Path,
    plan: Plan | None = None,
    arguments_by_rank: Mapping[int, Sequence[str]] | None = None,
) -> list[Ended]:
    """Run the program on several ranks, as torchrun would; further arguments for some of them."""
    port = str(free_port())
    programs = []
    for rank in range(world_size):
        environ = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
        environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        words = [*arguments, *(arguments_by_rank or {}).get(rank, [])]
        programs.append(start(*words, folder=folder, plan=plan, environ=environ, name=f"rank{rank}"))
    try:
        return [program.end() for program in programs]
    finally:
        for program in programs:
            with program:
                pass


def _forked(arguments: list[str], plan: Plan, environ: dict[str, str], out: Path, err: Path) -> None:
    """In the child: take over its streams and environment, then be the program."""
    for path, descriptor in ((out, 1), (err, 2)):
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(target, descriptor)
        os.close(target)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    os.environ.update(environ)
    import torch

    torch.set_num_threads(1)
    driver.main(arguments, {name: dict(options) for name, options in plan.items()})
