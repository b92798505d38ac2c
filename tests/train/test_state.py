"""The one dataclass that survives a restart, and what counts as a spike."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criadero.errors import CheckpointError
from criadero.train.state import TrainState

COUNT = st.integers(0, 2**60)
NORMS = st.lists(st.floats(0, allow_nan=False, allow_infinity=False), max_size=100).map(tuple)
STATES = st.builds(
    TrainState,
    step=COUNT,
    tokens=COUNT,
    next_sample=COUNT,
    skipped_steps=COUNT,
    spikes=COUNT,
    recent_norms=NORMS,
)


def after(state: TrainState, norm: float, *, skipped: bool = False, spike: bool = False) -> TrainState:
    return state.after_step(
        tokens=31, next_sample=state.next_sample + 3, gradient_norm=norm, skipped=skipped, spike=spike
    )


@given(STATES)
def test_json_brings_every_state_back_bit_by_bit(state: TrainState):
    assert TrainState.from_json(json.loads(json.dumps(state.to_json()))) == state


@pytest.mark.parametrize("values", [{"step": 1, "stepp": 2}, {"recent_norms": None}])
def test_an_unreadable_state_is_a_checkpoint_error(values):
    with pytest.raises(CheckpointError, match="not readable"):
        TrainState.from_json(values)


def test_a_step_counts_tokens_samples_and_itself():
    state = after(after(TrainState(), 1.0), 2.0)
    assert state == TrainState(step=2, tokens=62, next_sample=6, recent_norms=(1.0, 2.0))


def test_skipped_steps_and_spikes_are_counted_and_stay_out_of_the_window():
    state = after(after(TrainState(), 900.0, spike=True), float("nan"), skipped=True)
    assert state == TrainState(step=2, tokens=62, next_sample=6, skipped_steps=1, spikes=1)


def test_only_the_last_hundred_norms_are_kept():
    state = TrainState()
    for step in range(130):
        state = after(state, float(step))
    assert state.recent_norms == tuple(float(step) for step in range(30, 130))


def test_a_spike_is_a_norm_above_the_factor_times_the_median():
    state = TrainState(recent_norms=(1.0,) * 10 + (2.0,) * 5 + (100.0,) * 6)
    # 21 norms; the eleventh in order is 2.
    assert not state.is_spike(20.0, 10.0)
    assert state.is_spike(20.1, 10.0)


def test_there_are_no_spikes_before_twenty_norms():
    assert not TrainState(recent_norms=(1.0,) * 19).is_spike(1e9, 10.0)
    assert TrainState(recent_norms=(1.0,) * 20).is_spike(1e9, 10.0)
