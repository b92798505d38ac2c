"""The run folder: one training run's config, lock, status, metrics, checkpoints and model.

    runs/NAME/config.toml        the resolved config
    runs/NAME/environment.json   versions, git commit, host
    runs/NAME/run.lock           who writes here: host, pid, start time
    runs/NAME/status.json        running | finished | stopped | failed, and at which step
    runs/NAME/metrics.jsonl      one JSON object a line, each with its `step`
    runs/NAME/events.jsonl       spikes, skipped steps, roll-backs and resumes; only ever appended to
    runs/NAME/energy.jsonl       the energy ledger
    runs/NAME/hang-report.txt    what every rank was doing when one of them kept the others waiting
    runs/NAME/checkpoints/  model/  loss.png

Entry points: `RunFolder` for the one writer, `find_runs`, `summarise` and `first_sample` for readers.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import platform
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any, NoReturn, Self

from criadero import files
from criadero.config import flatten
from criadero.errors import RunError
from criadero.notices import say_once

METRICS = "metrics.jsonl"
EVENTS = "events.jsonl"
STATUS = "status.json"
HANG_REPORT = "hang-report.txt"
STATES = ("running", "finished", "stopped", "failed")


class RunLock:
    """Exclusive right to write a run folder, held until `release` or the end of the process.

    The kernel lock ends with its process, so a lock left by a killed run on this host is taken over;
    one written by another host cannot be judged from here and is refused.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "run.lock"
        self._stream: IO[str] | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            RunError: another live process, or a process on another host, holds it.
        """
        stream = self.path.open("a+")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._refuse(stream)
        stream.seek(0)
        holder = stream.read().strip()
        if holder and _identity_field(holder, "host") != socket.gethostname():
            self._refuse(stream)
        if holder:
            say_once(f"taking over the lock a dead process left on `{self.path.parent}`: {holder}")
        stream.truncate(0)
        stream.write(json.dumps(_own_identity()))
        stream.flush()
        self._stream = stream

    def _refuse(self, stream: IO[str]) -> NoReturn:
        stream.seek(0)
        holder = stream.read().strip()
        stream.close()
        raise RunError(
            f"`{self.path.parent}` is being written by {holder or 'another process'}; "
            f"this is {json.dumps(_own_identity())}",
            hint=f"wait for it or choose another run folder; if it is surely dead, remove `{self.path}`",
        )

    def __enter__(self) -> Self:
        """Take the lock; errors as for `acquire`."""
        self.acquire()
        return self

    def __exit__(self, *problem: object) -> None:
        self.release()

    def release(self) -> None:
        """Give the lock back."""
        if self._stream is not None:
            self._stream.truncate(0)
            self._stream.close()
            self._stream = None

    def is_held(self) -> bool:
        """Whether a live process on this host holds the lock."""
        try:
            with self.path.open("r") as stream:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False


class RunFolder:
    """The folder of one run, opened by its one writer (rank 0)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.model = path / "model"
        self.metrics_path = path / METRICS
        self.events_path = path / EVENTS
        self._lock = RunLock(path)
        self._metrics: IO[str] | None = None

    def open(self) -> None:
        """Create the folder, prove it is writable, take its lock and tidy up after a killed writer.

        Raises:
            RunError: it cannot be written, or somebody else writes it.
        """
        files.require_writable_folder(self.path)
        self._lock.acquire()
        files.remove_leftovers(self.path)
        files.write_json(self.path / "environment.json", describe_environment())

    def close(self) -> None:
        """Close the metrics and give the lock back."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None
        self._lock.release()

    def set_status(self, state: str, step: int, **details: Any) -> None:
        """Write status.json; `state` is one of STATES."""
        assert state in STATES
        files.write_json(self.path / STATUS, {"state": state, "step": step, "time": time.time(), **details})

    def start_metrics(self, resumed_step: int) -> None:
        """Open metrics.jsonl for appending, without lines after `resumed_step` and without a torn one."""
        kept = [row for row in read_metrics(self.metrics_path) if row["step"] <= resumed_step]
        files.write_text(self.metrics_path, "".join(json.dumps(row) + "\n" for row in kept))
        if self._metrics is not None:
            self._metrics.close()
        self._metrics = self.metrics_path.open("a")

    def write_metrics(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line; it is in the kernel's hands when this returns. JSON has no NaN: that is null."""
        assert self._metrics is not None
        self._metrics.write(_json_line({"step": step, **values}) + "\n")
        self._metrics.flush()

    def write_event(self, event: str, step: int, **values: Any) -> None:
        """Append one line to events.jsonl; it is on the disk when this returns."""
        line = _json_line({"event": event, "step": step, "time": time.time(), **values})
        files.append_line(self.events_path, line, durable=True)

    def roll_back_to(self, step: int, *, rollbacks: int) -> dict[str, Any] | None:
        """Return the event of a roll-back to the checkpoint of `step` that this checkpoint knows nothing of.

        Args:
            step: the step of the checkpoint that is resumed from.
            rollbacks: how many roll-backs its state has counted.
        """
        course = _rollbacks_in_force(read_events(self.events_path))
        return next((e for e in course if e["to_step"] == step and e["rollbacks"] > rollbacks), None)


def _json_line(values: Mapping[str, Any]) -> str:
    finite = {name: None if _is_not_finite(value) else value for name, value in values.items()}
    return json.dumps(finite, allow_nan=False)


def _is_not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the metrics of a run without torn lines; nothing if the file is missing."""
    yield from _read_lines(path)


def read_events(path: Path) -> list[dict[str, Any]]:
    """Return what happened to a run, oldest first; empty if the file is missing."""
    events = [row for row in _read_lines(path) if isinstance(row.get("event"), str)]
    whole = ("to_step", "next_sample", "rollbacks", "spikes", "skipped_steps")
    return [
        row
        for row in events
        if row["event"] != "rollback" or all(isinstance(row.get(name), int) for name in whole)
    ]


def _rollbacks_in_force(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the roll-backs that the run's present course went through, oldest first.

    One that went further back leaves out those to later steps; so does a resume from a checkpoint before it.
    """
    course: list[dict[str, Any]] = []
    for event in events:
        if event["event"] == "rollback":
            course = [e for e in course if e["to_step"] < event["to_step"]] + [event]
        elif event["event"] == "resumed":
            known = event.get("rollbacks", 0)
            course = [e for e in course if e["rollbacks"] <= known]
    return course


def first_sample(folder: Path, step: int, batch_sequences: int) -> int:
    """Return the first training sample of a step, from 1, of a run's present course.

    Args:
        folder: the run folder.
        batch_sequences: samples of one step.
    """
    before = [e for e in _rollbacks_in_force(read_events(folder / EVENTS)) if e["to_step"] < step]
    start, sample = (before[-1]["to_step"], before[-1]["next_sample"]) if before else (0, 0)
    return int(sample + (step - 1 - start) * batch_sequences)


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects with a `step` in a file of one a line.

    A kill tears the last line; a disk that was full for a while tears one in the middle.
    """
    if not path.exists():
        return
    with path.open("rb") as stream:
        for line in stream:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                yield row


def describe_environment() -> dict[str, Any]:
    """Return versions, git commit, host and command of this process."""
    packages = ("criadero", "torch", "numpy", "sentencepiece", "kitoken", "tokenizers", "safetensors")
    versions = {name: metadata.version(name) for name in packages}
    return {
        **_own_identity(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "versions": versions,
        "git_commit": git_commit(),
        "executable": Path(sys.executable).name,
    }


def git_commit() -> str | None:
    """Return the commit of the source tree this package runs from, None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD", "--show-prefix"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    commit, _, inside = done.stdout.strip().partition("\n")
    # Installed in an environment inside somebody's repository, it would name that repository's commit.
    return commit if inside == "src/criadero/" else None


def _own_identity() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _identity_field(holder: str, field: str) -> Any:
    try:
        return json.loads(holder).get(field)
    except ValueError:
        return None


@dataclass(frozen=True)
class RunSummary:
    """What a list of runs shows of one; None where the run has not got so far.

    `events` are the lines of events.jsonl: spikes, skipped steps, roll-backs, resumes.
    """

    name: str
    state: str
    step: int
    tokens: int | None
    loss: float | None
    heldout_bits_per_byte: float | None
    tokens_per_second: float | None
    joules: float | None
    events: tuple[dict[str, Any], ...] = ()


def summarise(folder: Path) -> RunSummary:
    """Read one run folder without touching it.

    Raises:
        RunError: it is not a run folder.
    """
    status_path = folder / STATUS
    if not status_path.exists():
        raise RunError(f"`{folder}` is not a run folder: it has no status.json")
    status = files.read_json(status_path, error=RunError)
    if (
        not isinstance(status, dict)
        or status.get("state") not in STATES
        or not isinstance(status.get("step"), int)
    ):
        raise RunError(f"`{status_path}` is not the status of a run: no state, or no step, that is known")
    state = status["state"]
    if state == "running" and not RunLock(folder).is_held():
        state = "killed"
    last: dict[str, Any] = {"step": status["step"]}
    for row in read_metrics(folder / METRICS):
        # null is a number that was not finite: it must not leave an older one standing.
        last |= {name: value for name, value in row.items() if isinstance(value, int | float | None)}
    return RunSummary(
        name=folder.resolve().name,
        state=state,
        step=last["step"],
        tokens=last.get("tokens"),
        loss=last.get("loss"),
        heldout_bits_per_byte=last.get("heldout_bits_per_byte"),
        tokens_per_second=last.get("tokens_per_second"),
        joules=last.get("joules"),
        events=tuple(read_events(folder / EVENTS)),
    )


def find_runs(folder: Path) -> list[Path]:
    """Return `folder` itself if it is a run folder, else those directly below it, by name.

    Raises:
        RunError: the folder does not exist.
    """
    if not folder.is_dir():
        raise RunError(
            f"`{folder}` does not exist", hint="runs are written by `criadero train` and `criadero demo`"
        )
    if (folder / STATUS).exists():
        return [folder]
    return [path for path in sorted(folder.iterdir()) if (path / STATUS).exists()]


def differing_settings(folders: list[Path]) -> dict[str, list[Any]]:
    """Return the settings in which the configs of several runs differ: dotted key -> one value a run.

    Raises:
        RunError: a run has no config that can be read.
    """
    flat = [flatten(_read_settings(folder / "config.toml")) for folder in folders]
    keys = sorted(set().union(*flat))
    rows = {key: [settings.get(key) for settings in flat] for key in keys}
    return {key: values for key, values in rows.items() if any(value != values[0] for value in values)}


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError) as problem:
        raise RunError(f"the settings of a run, `{path}`, cannot be read: {problem}") from problem
