"""Time that grows with the size of the input and no faster.

Entry point: `is_linear`. Measured is processor time, the best of several runs, because other processes on the
machine slow single runs down; what is quadratic takes four times as long however often it is tried.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")
_TRIES = 8
_SLACK_SECONDS = 0.05


def is_linear(run: Callable[[_T], object], make: Callable[[int], _T], size: int) -> bool:
    """Whether `run(make(2 * size))` takes less than three times as long as `run(make(size))`."""
    small, large = make(size), make(2 * size)
    best_small = best_large = float("inf")
    for tries in range(_TRIES):
        best_small = min(best_small, _seconds(run, small))
        best_large = min(best_large, _seconds(run, large))
        if tries and best_large < 3 * best_small + _SLACK_SECONDS:
            return True
    return False


def _seconds(run: Callable[[_T], object], given: _T) -> float:
    gc.collect()
    start = time.process_time()
    run(given)
    return time.process_time() - start
