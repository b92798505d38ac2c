"""How a corpus build shows itself: a live line on a terminal, a log line every few seconds elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING

from criadero.cli.output import LiveDisplay, format_seconds, live_line, terminal_columns

if TYPE_CHECKING:
    from criadero.corpus.engine.progress import Progress

logger = logging.getLogger("criadero")

_SECONDS_BETWEEN_LINES = 5.0
_REASONS_SHOWN = 3


class CorpusDisplay(LiveDisplay):
    """Shows source, stage, documents per second, time left and what was left out, by reason."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._last_line = time.monotonic()
        self._shown: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        """Show how far a stage is: in place on a terminal, elsewhere if the last line is old enough."""
        if self._live:
            before = self._shown
            if before is not None and (before.source, before.stage) != (progress.source, progress.stage):
                live_line.end()  # the last state of each stage stays
            self._shown = progress
            live_line.show(describe_progress(progress, columns=terminal_columns()))
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            logger.info(describe_progress(progress))


def describe_progress(progress: Progress, *, columns: int | None = None) -> str:
    """Return one line: where we are, rate, time left, documents left out with the most frequent reasons.

    With `columns`, it is shorter than that: a line that wraps cannot be written in place.
    """
    parts = [f"{progress.source}: {progress.stage or 'looking at the inputs'}"]
    if progress.splits_total:
        parts += [
            f"{progress.splits_done:,}/{progress.splits_total:,} splits",
            f"{progress.documents:,} documents",
        ]
        # What was over before it was looked at twice has no rate.
        if progress.documents_per_second or progress.splits_done < progress.splits_total:
            parts.append(f"{progress.documents_per_second:,.0f}/s")
    if progress.seconds_left is not None:
        parts.append(f"{format_seconds(progress.seconds_left)} left")
    if left_out := progress.reasons.total():
        most = progress.reasons.most_common(_REASONS_SHOWN)
        listed = ", ".join(f"{reason} {count:,}" for reason, count in most)
        parts.append(
            f"left out {left_out:,} ({listed}{', ...' if len(progress.reasons) > len(most) else ''})"
        )
    line = "  ".join(parts)
    return line if columns is None else line[: columns - 1]
