"""How far a source is: what the driver sees of running tasks, added up for a display."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import TypeAlias


@dataclass(frozen=True)
class Progress:
    """How far one part of a source is.

    Attributes:
        source: name of the source.
        stage: the stages that run now.
        splits_done: tasks that are finished, among them those of an earlier run.
        splits_total: tasks of these stages.
        documents: records that went through these stages so far.
        documents_per_second: in the last seconds; 0 before anything moved.
        seconds_left: until these stages are through, None as long as that cannot be said.
        reasons: documents left out of the source so far, by reason.
    """

    source: str
    stage: str
    splits_done: int
    splits_total: int
    documents: int
    documents_per_second: float
    seconds_left: float | None
    reasons: Counter[str]


OnProgress: TypeAlias = Callable[[Progress], None]

_WINDOW_SECONDS = 10.0


@dataclass
class Rate:
    """Documents per second over the last seconds."""

    _seen: list[tuple[float, int]] = field(default_factory=list)

    def update(self, documents: int) -> float:
        """Take the count of now and return the rate."""
        now = monotonic()
        self._seen.append((now, documents))
        while len(self._seen) > 2 and now - self._seen[0][0] > _WINDOW_SECONDS:
            self._seen.pop(0)
        start, before = self._seen[0]
        elapsed = now - start
        return max(0.0, (documents - before) / elapsed) if elapsed > 0 else 0.0
