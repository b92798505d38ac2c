"""What the loop calls besides itself: progress display, in-loop evaluation, fault injection in tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import nn

from criadero.train.state import TrainState


class Hook(Protocol):
    """Called by every rank at the same points; a hook that fails ends the run, so guard what may fail."""

    def before_step(self, model: nn.Module, state: TrainState) -> None:
        """Called before each step's forward pass."""

    def after_step(self, state: TrainState, metrics: Mapping[str, Any], *, total_steps: int) -> None:
        """Called with the numbers of each finished step."""


class NoHook:
    """Does nothing; a base for hooks that need one of the two calls."""

    def before_step(self, model: nn.Module, state: TrainState) -> None:
        """Do nothing."""

    def after_step(self, state: TrainState, metrics: Mapping[str, Any], *, total_steps: int) -> None:
        """Do nothing."""
