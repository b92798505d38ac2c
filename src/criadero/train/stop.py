"""Asking a run to stop: the first SIGTERM or Ctrl-C is a wish, the second one ends the process at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopFlag:
    """Whether this process has been asked to stop; looked at between steps and inside long waits.

    Args:
        acknowledge: called at once when a signal comes; a step may take long. It runs inside a signal
            handler, so it must not log.
    """

    def __init__(self, acknowledge: Callable[[], None] | None = None) -> None:
        self.requested = False
        self._acknowledge = acknowledge

    @contextmanager
    def on_signals(self) -> Iterator[StopFlag]:
        """Set the flag on SIGTERM and SIGINT; the old handlers come back at the end of the block.

        From the first on, the system's default action is in place: a second one ends the process at once,
        even inside a computation or a collective that does not return to Python.
        """
        previous = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _receive(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        if self._acknowledge is not None:
            self._acknowledge()
