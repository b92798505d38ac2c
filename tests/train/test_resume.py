"""Which settings may change when a run goes on, and which may not."""

from __future__ import annotations

import pytest

from criadero.config import flatten, to_values
from criadero.errors import CheckpointError, DataError
from criadero.train.resume import require_same_data, require_same_run
from tiny_run import TinyRun


def changed(values: dict, key: str, value: object) -> dict:
    section, _, name = key.partition(".")
    return {**values, section: {**values.get(section, {}), name: value}}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("run.folder", "moved"),
        ("train.tokens", 10**6),
        ("train.micro_batch_sequences", 1),
        ("train.device", "cuda"),
        ("train.loss_chunk_tokens", 3),
        ("parallel.dp_shard", 2),
        ("checkpoint.every_steps", 7),
        ("heldout.every_steps", 3),
        ("schedule.warmup_steps", 9),
        ("carbon.pue", 1.0),
    ],
)
def test_settings_that_leave_the_numbers_alone_may_change(tiny: TinyRun, tmp_path, key, value):
    saved = to_values(tiny.run_config(tmp_path))
    require_same_run(saved, changed(saved, key, value))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.dim", 64),
        ("train.seed", 1),
        ("train.batch_tokens", 256),
        ("train.compute_dtype", "bfloat16"),
        ("optimizer.learning_rate", 0.1),
        ("data.seed", 5),
        ("data.seq_len", 16),
        ("data.mask_documents", True),
    ],
)
def test_a_setting_that_makes_another_run_is_named_with_both_values(tiny: TinyRun, tmp_path, key, value):
    saved = to_values(tiny.run_config(tmp_path))
    with pytest.raises(CheckpointError) as problem:
        require_same_run(saved, changed(saved, key, value))
    assert f"`{key}`" in problem.value.message or key in problem.value.message
    assert f"was {flatten(saved)[key]!r}, is {value!r}" in problem.value.message


def test_all_differences_are_listed(tiny: TinyRun, tmp_path):
    saved = to_values(tiny.run_config(tmp_path))
    with pytest.raises(CheckpointError) as problem:
        require_same_run(saved, changed(changed(saved, "train.seed", 1), "model.norm_eps", 1e-5))
    assert problem.value.message.count("\n  - ") == 2


def test_data_that_changed_came_or_went_is_named():
    require_same_data({"a": "1", "b": "2"}, {"b": "2", "a": "1"})
    for current in ({"a": "1", "b": "3"}, {"a": "1"}, {"a": "1", "b": "2", "c": "3"}):
        with pytest.raises(DataError, match=r"source `[bc]`"):
            require_same_data({"a": "1", "b": "2"}, current)
