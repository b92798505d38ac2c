"""When checkpoints are written and which stay: the `[checkpoint]` section of a training config."""

from __future__ import annotations

from pydantic import PositiveInt

from criadero.config import Config


class CheckpointConfig(Config):
    """Interval and retention of checkpoints.

    Attributes:
        every_steps: optimizer steps from one checkpoint to the next.
        keep: how many of the newest stay.
        keep_every_steps: checkpoints at multiples of this stay for good; None keeps only the newest.
        background: write while training goes on, at the price of a copy of the state in memory.
    """

    every_steps: PositiveInt = 1000
    keep: PositiveInt = 3
    keep_every_steps: PositiveInt | None = None
    background: bool = True
