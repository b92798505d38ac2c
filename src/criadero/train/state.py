"""`TrainState`: everything besides tensors that must survive a restart.

Weights' initialisation and the order of the data are pure functions of the seed and these counts, and
training draws no random numbers, so there is no generator state to keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from criadero.errors import CheckpointError

_COUNTERS = ("next_sample", "skipped_steps", "spikes", "rollbacks")
_WINDOW = 100
_WARM = 20


@dataclass(frozen=True)
class TrainState:
    """Position of a run.

    Attributes:
        step: optimizer steps taken or skipped.
        tokens: target tokens seen.
        next_sample: global index of the next training sequence; the loader's whole state.
        skipped_steps: steps whose update was left out because of their numbers; those of roll-backs too.
        spikes: gradient-norm spikes seen.
        rollbacks: how often the run went back to an earlier checkpoint.
        recent_norms: gradient norms of the last steps, against which a spike is judged.
    """

    step: int = 0
    tokens: int = 0
    next_sample: int = 0
    skipped_steps: int = 0
    spikes: int = 0
    rollbacks: int = 0
    recent_norms: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainState:
        """Read the form `to_json` makes.

        Raises:
            CheckpointError: keys are missing or unknown.
        """
        try:
            return cls(**{**values, "recent_norms": tuple(values["recent_norms"])})
        except (KeyError, TypeError) as problem:
            raise CheckpointError(
                f"the training state in the checkpoint is not readable: {problem}"
            ) from None

    def counters(self) -> dict[str, int]:
        """Return what a roll-back does not take back: where the data go on, and what went wrong so far."""
        return {name: getattr(self, name) for name in _COUNTERS}

    def with_counters(self, values: Mapping[str, Any]) -> TrainState:
        """Return this state, as a checkpoint has it, with the counters of the run that goes back to it."""
        return TrainState.from_json(self.to_json() | {name: int(values[name]) for name in _COUNTERS})

    def is_spike(self, gradient_norm: float, factor: float) -> bool:
        """Whether a norm is more than `factor` times the median of the recent ones."""
        if len(self.recent_norms) < _WARM:
            return False
        return gradient_norm > factor * sorted(self.recent_norms)[len(self.recent_norms) // 2]

    def after_step(
        self, *, tokens: int, next_sample: int, gradient_norm: float, skipped: bool, spike: bool
    ) -> TrainState:
        """Return the state after one step; norms of skipped steps and spikes do not enter the window."""
        norms = self.recent_norms if skipped or spike else (*self.recent_norms, gradient_norm)[-_WINDOW:]
        return replace(
            self,
            step=self.step + 1,
            tokens=self.tokens + tokens,
            next_sample=next_sample,
            skipped_steps=self.skipped_steps + skipped,
            spikes=self.spikes + spike,
            recent_norms=norms,
        )
