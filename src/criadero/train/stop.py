"""Asking a run to stop: the first SIGTERM or Ctrl-C is a wish, the second one ends the process at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopFlag:
    """Whether this process has been asked to stop; looked at between steps and inside long waits."""

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def on_signals(self) -> Iterator[StopFlag]:
        """Set the flag on SIGTERM and SIGINT; the old handlers come back at the end of the block.

        A second signal is passed to the system's default action, which ends the process.
        """
        previous = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self.requested:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.requested = True
