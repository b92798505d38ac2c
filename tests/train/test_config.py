"""The training config: the paper's values as defaults, presets, contradictions refused together."""

from __future__ import annotations

import pytest

from criadero.config import validate
from criadero.errors import ConfigError
from criadero.train.config import RunConfig


def values(**sections) -> dict:
    return {
        "run": {"folder": "runs/x"},
        "model": {"preset": "7b"},
        "data": {"sources": [{"name": "a", "path": "a"}]},
        "train": {"tokens": 10**12},
        **sections,
    }


def load(**sections) -> RunConfig:
    return validate(RunConfig, values(**sections), where="test.toml")


def faults(**sections) -> str:
    with pytest.raises(ConfigError) as problem:
        load(**sections)
    return problem.value.message


def test_the_defaults_are_the_papers():
    """LLaMA 2.3: AdamW 0.9, 0.95, decay 0.1, clip 1.0, warm-up 2,000, cosine to 10%; batches of 4M tokens."""
    config = load()
    optimizer, schedule = config.optimizer, config.schedule
    assert (optimizer.beta1, optimizer.beta2, optimizer.weight_decay, optimizer.clip_norm) == (
        0.9,
        0.95,
        0.1,
        1.0,
    )
    assert optimizer.learning_rate == 3e-4
    assert (schedule.kind, schedule.warmup_steps, schedule.final_ratio) == ("cosine", 2000, 0.1)
    assert config.train.batch_tokens == 4 * 2**20
    assert config.data.seq_len == 2048
    assert config.batch_sequences == 2048
    assert config.total_steps == 238_418


def test_a_preset_stands_for_its_fields_and_others_beside_it_win():
    config = load(model={"preset": "13b", "vocab_size": 1000, "num_kv_heads": 8})
    assert (config.model.dim, config.model.num_layers, config.model.hidden_dim) == (5120, 40, 13824)
    assert (config.model.vocab_size, config.model.num_kv_heads) == (1000, 8)


def test_an_unknown_preset_names_the_known_ones():
    assert "unknown preset '7c', known: 7b, 13b, 33b, 65b" in faults(model={"preset": "7c"})


def test_sections_that_contradict_each_other_are_all_reported():
    message = faults(
        data={"sources": [{"name": "a", "path": "a"}], "seq_len": 3000},
        train={"tokens": 1000, "batch_tokens": 4096},
    )
    assert "train.batch_tokens (4096) must be a multiple of data.seq_len (3000)" in message
    assert "data.seq_len (3000) is longer than model.max_seq_len (2048)" in message
    assert "train.tokens (1000) is less than one step of train.batch_tokens (4096)" in message


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("optimizer", "learning_rate", 0),
        ("optimizer", "learning_rate", float("inf")),
        ("optimizer", "learning_rate", float("nan")),
        ("optimizer", "weight_decay", float("inf")),
        ("optimizer", "eps", float("nan")),
        ("optimizer", "beta2", 1.0),
        ("optimizer", "clip_norm", float("nan")),
        ("schedule", "final_ratio", 1.1),
        ("schedule", "decay_fraction", 0),
        ("schedule", "kind", "cosin"),
        ("train", "batch_tokens", 0),
        ("train", "device", "tpu"),
        ("train", "compute_dtype", "float16"),
        ("train", "spike_factor", 1.0),
        ("train", "timeout_seconds", 10**14),
    ],
)
def test_a_value_out_of_bounds_is_named_with_what_was_found(section: str, key: str, value: object):
    settings = {"tokens": 10**12, key: value} if section == "train" else {key: value}
    assert f"`{section}.{key}` is {value!r}: " in faults(**{section: settings})


def test_what_tensor_parallelism_cannot_cut_is_refused_with_every_reason():
    values = {
        "run": {"folder": "r"},
        "model": {"vocab_size": 301, "dim": 12, "num_layers": 1, "num_heads": 3, "hidden_dim": 10},
        "data": {"seq_len": 6, "sources": [{"name": "a", "path": "a"}]},
        "train": {"tokens": 12, "batch_tokens": 12},
        "parallel": {"tp": 2, "tp_chunks": 2},
    }
    with pytest.raises(ConfigError) as caught:
        validate(RunConfig, values, where="the test")
    for setting in ("model.num_heads (3)", "model.num_kv_heads (3)", "model.vocab_size (301)"):
        assert f"{setting} must be a multiple of parallel.tp (2)" in str(caught.value)
    assert "data.seq_len (6) must be a multiple of parallel.tp x parallel.tp_chunks (4)" in str(caught.value)
    assert "hidden_dim" not in str(caught.value)


def test_8_bit_products_ask_for_widths_of_16_no_tensor_parallelism_and_a_gpu():
    load(train={"tokens": 10**12, "fp8": True})
    said = faults(
        model={"preset": "7b", "hidden_dim": 11000},
        train={"tokens": 10**12, "fp8": True, "device": "cpu"},
        parallel={"tp": 2},
    )
    assert "has 3 faults:" in said
    assert "with train.fp8, model.hidden_dim (11000) must be a multiple of 16" in said
    assert "train.fp8 works with parallel.tp=1, not with 2" in said
    assert "train.fp8 needs train.device=cuda or auto" in said
