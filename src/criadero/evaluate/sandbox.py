"""Running code that a model wrote, where it can harm nothing (LLaMA 3.6 measures by running it).

Entry point: `run`. A program runs in a process of its own, confined by the kernel (`confined`): no network,
no other process, nothing written, limits on processor time, memory and wall time. There is no weaker way:
where the kernel cannot do that, `run` is an error. A program passes if it comes to its end without an
exception; one that is written to deceive could still claim that it did, as the tests run beside it.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from criadero.errors import ResourceError

_CONFINED = Path(__file__).with_name("confined.py")
_NO_SANDBOX = 3
_MOST_BYTES = 4096


@dataclass(frozen=True)
class Outcome:
    """How a program ended; `reason` says why it did not pass."""

    passed: bool
    reason: str


def run(
    program: str, *, wall_seconds: float = 10.0, cpu_seconds: int = 5, memory_bytes: int = 1 << 30
) -> Outcome:
    """Run a Python program to its end or its limits.

    Raises:
        ResourceError: this system cannot confine a process.
    """
    token = secrets.token_hex(16)
    asked = {"program": program, "token": token, "cpu_seconds": cpu_seconds, "memory_bytes": memory_bytes}
    with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryFile() as question:
        question.write(json.dumps(asked).encode())
        question.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-X", "utf8", str(_CONFINED)],
            stdin=question, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            cwd=empty, env={"PATH": "/usr/bin:/bin"}, start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(wall_seconds)
        except subprocess.TimeoutExpired:
            return Outcome(False, f"more than {wall_seconds:g} seconds")
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            with process.stdout as pipe:
                answer = os.read(pipe.fileno(), _MOST_BYTES).decode(errors="replace")
    if process.returncode == _NO_SANDBOX and answer.startswith("no sandbox"):
        raise ResourceError(
            f"generated code cannot be confined here: {answer.removeprefix('no sandbox: ')}",
            hint="run it on Linux (x86_64 or aarch64) where seccomp is allowed, or leave such benchmarks out",
        )
    if answer == token and process.returncode == 0:
        return Outcome(True, "passed")
    if process.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return Outcome(False, f"more than {cpu_seconds} seconds of processor time")
    return Outcome(False, answer.replace(token, "") or f"ended with code {process.returncode}")
