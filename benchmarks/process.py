"""For the scripts beside it: a measured system in its own process, circumstances, and where a result goes."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


class Ended(SystemExit):
    """A process ended before it answered; the script ends with it, unless it goes on without that process."""


class Process:
    """Answers one question at a time: JSON lines in, JSON lines out."""

    def __init__(
        self, command: Sequence[str | Path], *, threads: int, environment: Mapping[str, str] | None = None
    ) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": str(threads),
                "HF_HUB_OFFLINE": "1",
                **(environment or {}),
            },
        )

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Send one line, wait for the answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Ended(f"{self._process.args} has ended") from None
        return self._answer()

    def finish(self) -> dict[str, Any]:
        """Close stdin; return the last answer, that of the end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        answer = self._answer()
        self._process.wait()
        return answer

    def stop(self) -> None:
        """End the process, whatever it does, and wait until what it held is free."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                assert pipe is not None
                pipe.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Ended(f"{self._process.args} ended without an answer")
        answer: dict[str, Any] = json.loads(line)
        return answer


def circumstances(threads: int) -> dict[str, Any]:
    """Return what a reader needs to judge the numbers."""
    git = subprocess.run(
        ["git", "-C", HERE, "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return {
        "cpu": cpu_model(),
        "threads": threads,
        "python": platform.python_version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": git.stdout.strip() or None,
    }


def print_result(result: Mapping[str, Any], file: Path, *, save: bool) -> None:
    """Print the result as the last line, and write it to its file if that is wanted."""
    if save:
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def cpu_model() -> str:
    """Return the CPU's name, and which of the bfloat16 instructions it has."""
    path = Path("/proc/cpuinfo")
    fields: dict[str, str] = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    known = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in fields.get("flags", "").split()]
    return " ".join([fields.get("model name", platform.machine()), *known])
