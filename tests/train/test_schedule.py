"""Learning rates worked out by hand (LLaMA 2.3: 2,000 steps of warm-up, cosine to a tenth)."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criadero.train.config import ScheduleConfig
from criadero.train.schedule import learning_rate, say_what_has_no_effect


def rate(step: int, total_steps: int, *, maximum: float = 1.0, **schedule) -> float:
    return learning_rate(step, maximum=maximum, total_steps=total_steps, schedule=ScheduleConfig(**schedule))


def test_the_papers_7b_schedule_at_its_corners():
    steps = 238_418  # 1T tokens by 4,194,304
    assert rate(0, steps, maximum=3e-4) == pytest.approx(3e-4 / 2000)
    assert rate(999, steps, maximum=3e-4) == pytest.approx(1.5e-4)
    assert rate(1999, steps, maximum=3e-4) == 3e-4
    assert rate(2000, steps, maximum=3e-4) == 3e-4
    assert rate(steps - 1, steps, maximum=3e-4) == 3e-4 * 0.1


def test_cosine_by_hand():
    # 4 steps of warm-up, then progress 0, 1/4, 1/2, 3/4, 1 over steps 4 to 8.
    expected = [0.25, 0.5, 0.75, 1.0]
    expected += [0.1 + 0.9 * (1 + math.cos(math.pi * quarter / 4)) / 2 for quarter in range(5)]
    found = [rate(step, 9, warmup_steps=4) for step in range(9)]
    assert found == pytest.approx(expected, rel=1e-12)
    assert found[6] == pytest.approx(0.55)
    assert found[8] == 0.1


def test_warmup_stable_decay_by_hand():
    # The last 5 of 10 steps fall, the first of them from the maximum: progress 0, 1/4, 1/2, 3/4, 1.
    found = [
        rate(step, 10, kind="wsd", warmup_steps=2, decay_fraction=0.5, final_ratio=0.2) for step in range(10)
    ]
    assert found == pytest.approx([0.5, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2], rel=1e-12)


def test_without_warmup_the_first_step_has_the_maximum():
    assert rate(0, 10, warmup_steps=0) == 1.0


@given(
    kind=st.sampled_from(["cosine", "wsd"]),
    warmup_steps=st.integers(0, 50),
    decay_steps=st.integers(1, 100),
    final_ratio=st.floats(0, 1),
    decay_fraction=st.floats(0.01, 1),
)
def test_any_schedule_rises_then_falls_and_ends_at_the_final_ratio(
    kind, warmup_steps, decay_steps, final_ratio, decay_fraction
):
    total = warmup_steps + decay_steps
    settings = {"kind": kind, "warmup_steps": warmup_steps, "final_ratio": final_ratio}
    rates = [rate(step, total, **settings, decay_fraction=decay_fraction) for step in range(total)]
    assert rates[-1] == pytest.approx(final_ratio, abs=1e-12)
    assert all(earlier < later for earlier, later in pairwise(rates[:warmup_steps]))
    assert all(earlier >= later for earlier, later in pairwise(rates[warmup_steps:]))
    assert max(rates) <= 1.0


@pytest.mark.parametrize(
    ("schedule", "total_steps", "said"),
    [
        ({"warmup_steps": 2000}, 1999, "warmup_steps is 2,000, the run has 1,999 steps"),
        ({"decay_fraction": 0.3}, 9000, "decay_fraction has no effect with the cosine schedule"),
        ({"warmup_steps": 2000}, 2000, ""),
        ({"decay_fraction": 0.3, "kind": "wsd"}, 9000, ""),
    ],
)
def test_settings_that_do_not_do_what_one_expects_are_said(
    caplog: pytest.LogCaptureFixture, schedule: dict, total_steps: int, said: str
):
    say_what_has_no_effect(ScheduleConfig(**schedule), total_steps=total_steps)
    assert said in caplog.text
    assert bool(caplog.records) == bool(said)
