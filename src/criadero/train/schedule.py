"""Learning rate as a pure function of the step (LLaMA 2.3)."""

from __future__ import annotations

import math

from criadero.notices import say_once
from criadero.train.config import ScheduleConfig


def say_what_has_no_effect(schedule: ScheduleConfig, *, total_steps: int) -> None:
    """Say, before a run, which of its settings do not do what one would expect of them."""
    if schedule.warmup_steps > total_steps:
        say_once(
            f"schedule.warmup_steps is {schedule.warmup_steps:,}, the run has {total_steps:,} steps: "
            "the learning rate never reaches its maximum"
        )
    if schedule.kind == "cosine" and schedule.decay_fraction != ScheduleConfig().decay_fraction:
        say_once("schedule.decay_fraction has no effect with the cosine schedule")


def learning_rate(step: int, *, maximum: float, total_steps: int, schedule: ScheduleConfig) -> float:
    """Return the rate of optimizer step `step` (0 is the first) of `total_steps`.

    The first warm-up step has 1/warmup_steps of the maximum, the last step of the run is
    at `final_ratio` of it.
    """
    if step < schedule.warmup_steps:
        return maximum * (step + 1) / schedule.warmup_steps
    if schedule.kind == "cosine":
        ratio = _cosine(_progress(step, start=schedule.warmup_steps, total_steps=total_steps), schedule)
    else:
        decay_steps = max(1, round(schedule.decay_fraction * total_steps))
        ratio = _linear(_progress(step, start=total_steps - decay_steps, total_steps=total_steps), schedule)
    return maximum * ratio


def _progress(step: int, *, start: int, total_steps: int) -> float:
    """Share of the decay that is done at `step`: 0 up to `start`, 1 at the last step."""
    last = total_steps - 1
    return 1.0 if step >= last else max(0.0, (step - start) / max(1, last - start))


def _cosine(progress: float, schedule: ScheduleConfig) -> float:
    return schedule.final_ratio + (1 - schedule.final_ratio) * 0.5 * (1 + math.cos(math.pi * progress))


def _linear(progress: float, schedule: ScheduleConfig) -> float:
    return 1 - (1 - schedule.final_ratio) * progress
