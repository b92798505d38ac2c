"""Stop strings in a stream of text pieces, wherever the pieces are cut.

Entry point: `StopFinder`. What could still become a stop string is held back; no part of one is ever let
through.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopFinder:
    """Looks for the first of some stop strings in text that comes in pieces.

    Args:
        stops: non-empty strings; without any, all text passes at once.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False
        """Whether a stop string has come; what follows it is dropped."""

    def push(self, piece: str) -> str:
        """Take the next piece; return the text that can no longer be part of a stop string."""
        if self.found:
            return ""
        text = self._held + piece
        starts = [start for stop in self._stops if (start := text.find(stop)) >= 0]
        if starts:
            self.found, self._held = True, ""
            return text[: min(starts)]
        kept = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def finish(self) -> str:
        """Return what was held back; the text is over and no stop string came of it."""
        text, self._held = self._held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that begins `stop` without being all of it."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if stop.startswith(text[-size:])), 0)
