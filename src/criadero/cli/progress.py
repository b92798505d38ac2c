"""How a long run shows itself: a live line on a terminal, a log line every few seconds elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

from torch import nn

from criadero.cli.output import LiveDisplay, format_seconds, live_line, terminal_columns
from criadero.train.config import RunConfig
from criadero.train.state import TrainState

logger = logging.getLogger("criadero")


class ProgressDisplay(LiveDisplay):
    """A training hook that shows step, loss, speed and time left on rank 0."""

    def __init__(self, config: RunConfig, *, shown: bool) -> None:
        self._seconds_between_lines = config.run.log_seconds
        self._shown = shown
        self._live = shown and sys.stderr.isatty()
        self._last_line = float("-inf")  # the clock may begin with the machine

    def before_step(self, model: nn.Module, state: TrainState) -> None:
        """Nothing to show yet."""

    def after_step(self, state: TrainState, metrics: Mapping[str, Any], *, total_steps: int) -> None:
        """Show the step, on a terminal in place, elsewhere if the last line is old enough."""
        now = time.monotonic()
        is_last = state.step == total_steps
        interval = 0.1 if self._live else self._seconds_between_lines
        if not self._shown or (now - self._last_line < interval and not is_last):
            return
        self._last_line = now
        if self._live:
            live_line.show(describe_step(state, metrics, total_steps=total_steps, columns=terminal_columns()))
        else:
            logger.info(describe_step(state, metrics, total_steps=total_steps))


def describe_step(
    state: TrainState, metrics: Mapping[str, Any], *, total_steps: int, columns: int | None = None
) -> str:
    """Return one line: step, loss, rate, norm, tokens per second, MFU if known, time left.

    With `columns`, it is shorter than that: a line that wraps cannot be written in place.
    """
    mfu = metrics["mfu_palm"]
    parts = {
        "step": f"step {state.step:,}/{total_steps:,} ({100 * state.step / total_steps:.0f}%)",
        "loss": f"loss {metrics['loss']:.4f}",
        "rate": f"lr {metrics['learning_rate']:.2e}",
        "norm": f"norm {metrics['gradient_norm']:.2f}",
        "speed": f"{metrics['tokens_per_second']:,.0f} tokens/s",
        **({"mfu": f"MFU {100 * mfu:.1f}%"} if mfu is not None else {}),
        "left": f"{format_seconds(metrics['eta_seconds'])} left",
    }
    for least in ("norm", "rate", "mfu"):
        if columns is not None and len("  ".join(parts.values())) >= columns:
            parts.pop(least, None)
    line = "  ".join(parts.values())
    return line if columns is None else line[: columns - 1]
