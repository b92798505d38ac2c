"""The energy ledger of a run folder: append-only, one file per rank, every attempt kept.

Entry points: `LedgerSegment` around each attempt (it may finish, stop, fail or be killed), `read_segments`
and `total` afterwards. Every line is a JSON object with the running totals of its segment, so that the newest
line of a segment is its result: a kill -9 loses the time since that line, a torn line only itself.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol

from criadero import files
from criadero.carbon.reading import EnergyComponent, EnergyReading, kgco2e, measured_fraction
from criadero.errors import DataError, StoppedEarly

logger = logging.getLogger("criadero")

FORMAT_VERSION = 1

# What a kill -9 may cost the ledger; more lines than that would only fill the disk of a long run.
_SECONDS_BETWEEN_LINES = 5.0

Outcome = Literal["finished", "stopped", "failed", "killed", "running"]


class Meter(Protocol):
    """What the ledger asks for energy; `EnergyMeter` is one."""

    def read(self) -> EnergyReading:
        """Return the energy since the meter was started."""


def ledger_path(run_folder: Path, rank: int = 0) -> Path:
    """Return the file that `rank` appends to: `energy.jsonl`, and `energy.rank-00001.jsonl` and so on."""
    return run_folder / ("energy.jsonl" if rank == 0 else f"energy.rank-{rank:05d}.jsonl")


class LedgerSegment:
    """One attempt at work, from a start to an end, in the ledger of a run folder.

    Use as a context manager around the work and call `update` now and then. A normal end is `finished`,
    `StoppedEarly` or Ctrl-C is `stopped`, any other exception is `failed`; without an end line the attempt
    was killed. A ledger that cannot be written warns and lets the work go on.

    Args:
        run_folder: the run folder, made when needed.
        meter: a meter that was started.
        activity: what the energy is spent on, such as `train` or `evaluate`.
        rank: this process; every rank has its own file.
    """

    def __init__(self, run_folder: Path, meter: Meter, *, activity: str = "train", rank: int = 0) -> None:
        self.path = ledger_path(run_folder, rank)
        self.segment = uuid.uuid4().hex
        self._meter = meter
        self._steps, self._tokens = 0, 0
        self._next_line_seconds = 0.0
        self._identity = {"segment": self.segment, "rank": rank, "activity": activity}

    def __enter__(self) -> LedgerSegment:
        self._append("start", {}, durable=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        outcome = "failed"
        if kind is None:
            outcome = "finished"
        elif issubclass(kind, (StoppedEarly, KeyboardInterrupt)):
            outcome = "stopped"
        self._append("end", {"outcome": outcome, **self._progress(self._meter.read())}, durable=True)

    def update(self, *, steps: int, tokens: int) -> EnergyReading:
        """Note how far this attempt is and return the energy so far; a line is appended every few seconds.

        Args:
            steps: optimizer steps done in this attempt.
            tokens: tokens of the whole job (not of this rank) processed in this attempt.
        """
        self._steps, self._tokens = steps, tokens
        reading = self._meter.read()
        if reading.seconds >= self._next_line_seconds:
            self._append("update", self._progress(reading))
            self._next_line_seconds = reading.seconds + _SECONDS_BETWEEN_LINES
        return reading

    def _progress(self, reading: EnergyReading) -> dict[str, Any]:
        components = [
            {"name": c.name, "joules": round(c.joules, 3), "provenance": c.provenance, "note": c.note}
            for c in reading.components
        ]
        seconds = round(reading.seconds, 3)
        return {"steps": self._steps, "tokens": self._tokens, "seconds": seconds, "components": components}

    def _append(self, event: str, values: Mapping[str, Any], *, durable: bool = False) -> None:
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        known = {"format_version": FORMAT_VERSION, "event": event, "time": time, **self._identity}
        line = json.dumps({**known, **values})
        try:
            files.append_line(self.path, line, durable=durable)
        except OSError as problem:
            logger.warning("the energy ledger `%s` cannot be written: %s", self.path, problem.strerror)


@dataclass(frozen=True)
class Segment:
    """What the ledger knows about one attempt of one rank."""

    segment: str
    rank: int
    activity: str
    outcome: Outcome
    started: str
    """UTC, ISO 8601."""
    last_seen: str
    """Time of the newest line, UTC, ISO 8601."""
    seconds: float = 0.0
    steps: int = 0
    tokens: int = 0
    components: tuple[EnergyComponent, ...] = ()

    @property
    def joules(self) -> float:
        """Energy of this attempt."""
        return sum(component.joules for component in self.components)


def read_segments(run_folder: Path, *, running: bool = False) -> list[Segment]:
    """Return all attempts of all ranks in the order in which they began; empty without a ledger.

    Args:
        run_folder: the run folder.
        running: the caller knows that the run is alive, so the newest attempt of each rank that has no end is
            `running`; otherwise every attempt without an end counts as `killed` with its last reading.

    Raises:
        DataError: a ledger of a newer format.
    """
    segments: list[Segment] = []
    for path in sorted(run_folder.glob("energy*.jsonl")):
        of_rank = _read_file(path)
        if running and of_rank and of_rank[-1].outcome == "killed":
            of_rank[-1] = replace(of_rank[-1], outcome="running")
        segments += of_rank
    return sorted(segments, key=lambda segment: segment.started)


def _read_file(path: Path) -> list[Segment]:
    segments: dict[str, Segment] = {}
    damaged = 0
    for line in path.read_bytes().split(b"\n"):
        try:
            values = json.loads(line) if line else None
            if values is not None:
                _apply(segments, values, path)
        except (ValueError, KeyError, TypeError):
            damaged += 1
    if damaged:
        logger.warning("%d unreadable line(s) in `%s` were left out", damaged, path)
    return list(segments.values())


def _apply(segments: dict[str, Segment], values: dict[str, Any], path: Path) -> None:
    """Add one line to what is known about its segment."""
    if values["format_version"] > FORMAT_VERSION:
        found = values["format_version"]
        raise DataError(
            f"`{path}` has ledger format {found}, this program reads up to {FORMAT_VERSION}",
            hint="use the version of criadero that wrote it, or a newer one",
        )
    name, time = values["segment"], values["time"]
    known = segments.get(name) or Segment(name, values["rank"], values["activity"], "killed", time, time)
    if values["event"] != "start":
        known = replace(
            known,
            outcome=values.get("outcome", "killed"),
            last_seen=time,
            seconds=values["seconds"],
            steps=values["steps"],
            tokens=values["tokens"],
            components=tuple(EnergyComponent(**component) for component in values["components"]),
        )
    segments[name] = known


@dataclass(frozen=True)
class EnergyTotals:
    """Energy and work of many attempts."""

    components: tuple[EnergyComponent, ...]
    """Summed by name and provenance."""
    joules_by_outcome: Mapping[Outcome, float]
    seconds: float
    """Wall time, of rank 0."""
    steps: int
    """Steps computed, repeated ones counted again."""
    tokens: int
    """Tokens processed, repeated ones counted again."""

    @property
    def joules(self) -> float:
        """Energy of all attempts of all ranks."""
        return sum(component.joules for component in self.components)

    @property
    def kwh(self) -> float:
        """The same in kWh."""
        return self.joules / 3_600_000

    @property
    def measured_fraction(self) -> float:
        """Part of the energy that hardware counters gave, 0 to 1."""
        return measured_fraction(self.components)

    def kgco2e(self, grid_kgco2e_per_kwh: float) -> float:
        """Return the carbon at a grid factor."""
        return kgco2e(self.joules, grid_kgco2e_per_kwh)


def total(segments: Iterable[Segment]) -> EnergyTotals:
    """Sum attempts and ranks; time, steps and tokens are of the whole job and taken from rank 0."""
    segments = list(segments)
    merged: dict[tuple[str, str], EnergyComponent] = {}
    by_outcome: dict[Outcome, float] = {}
    for segment in segments:
        by_outcome[segment.outcome] = by_outcome.get(segment.outcome, 0.0) + segment.joules
        for part in segment.components:
            key = (part.name, part.provenance)
            earlier_joules = merged[key].joules if key in merged else 0.0
            merged[key] = replace(part, joules=earlier_joules + part.joules)
    first = [segment for segment in segments if segment.rank == 0]
    return EnergyTotals(
        components=tuple(merged.values()),
        joules_by_outcome=by_outcome,
        seconds=sum(segment.seconds for segment in first),
        steps=sum(segment.steps for segment in first),
        tokens=sum(segment.tokens for segment in first),
    )
