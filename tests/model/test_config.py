"""What a model config fills in and refuses."""

from __future__ import annotations

import pytest

from criadero import config as configs
from criadero.errors import ConfigError
from criadero.model.config import ModelConfig, RopeScaling, feed_forward_width


def validated(**values: object) -> ModelConfig:
    return configs.validate(ModelConfig, values, where="model")


def test_derived_sizes_are_filled_in():
    config = validated(dim=4096, num_layers=32, num_heads=32)
    assert (config.num_kv_heads, config.head_dim, config.hidden_dim) == (32, 128, 11008)
    assert (config.vocab_size, config.max_seq_len, config.norm_eps, config.rope_theta) == (
        32000,
        2048,
        1e-6,
        1e4,
    )
    assert config.rope_scaling is None
    assert not config.tie_embeddings


def test_given_sizes_are_kept():
    config = validated(dim=30, num_layers=1, num_heads=4, num_kv_heads=2, head_dim=6, hidden_dim=50)
    assert (config.num_kv_heads, config.head_dim, config.hidden_dim) == (2, 6, 50)


@pytest.mark.parametrize(
    ("dim", "width"), [(4096, 11008), (5120, 13824), (6656, 17920), (8192, 22016), (96, 256)]
)
def test_feed_forward_width_is_that_of_table_2(dim: int, width: int):
    assert feed_forward_width(dim) == width


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dim": 33}, "dim 33 is not a multiple of num_heads 4"),
        ({"num_kv_heads": 3}, "num_heads 4, not a multiple of num_kv_heads 3"),
        ({"head_dim": 7}, "head_dim 7 is odd"),
        ({"norm_eps": 0}, "`norm_eps` is 0"),
        ({"rope_theta": float("inf")}, "`rope_theta` is inf"),
        ({"num_kv_head": 2}, "unknown key `num_kv_head`, did you mean `num_kv_heads`?"),
        ({"rope_scaling": {"factor": 8, "high_freq_factor": 1}}, "must be greater than low_freq_factor"),
        ({"rope_scaling": {"kind": "yarn", "factor": 8}}, "'llama3'"),
    ],
)
def test_contradictions_are_refused(values: dict[str, object], message: str):
    with pytest.raises(ConfigError) as caught:
        validated(**{"dim": 32, "num_layers": 2, "num_heads": 4, **values})
    assert message in str(caught.value)


def test_a_fault_is_not_repeated_for_what_derives_from_it():
    with pytest.raises(ConfigError, match="has 2 faults") as caught:
        validated(dim=-1, num_layers=2)
    assert "`dim` is -1" in str(caught.value)
    assert "`num_heads` is missing" in str(caught.value)


def test_a_config_survives_a_toml_file(tmp_path):
    scaling = RopeScaling(factor=8.0, original_max_seq_len=64)
    config = ModelConfig(
        dim=24, num_layers=2, num_heads=3, num_kv_heads=1, rope_scaling=scaling, norm_eps=1e-5
    )
    configs.save(config, tmp_path / "model.toml")
    assert configs.load(ModelConfig, tmp_path / "model.toml") == config
