"""Presets have the paper's sizes, and arithmetic counts what is built."""

from __future__ import annotations

import pytest
import torch

from criadero.errors import ConfigError
from criadero.model.config import ModelConfig
from criadero.model.presets import PRESETS, num_parameters, preset
from criadero.model.transformer import Transformer

# LLaMA, Table 2; the counts are those of the released weights
TABLE_2 = {
    "7b": (4096, 32, 32, 11008, 6_738_415_616),
    "13b": (5120, 40, 40, 13824, 13_015_864_320),
    "33b": (6656, 52, 60, 17920, 32_528_943_616),
    "65b": (8192, 64, 80, 22016, 65_285_660_672),
}


def count_built(config: ModelConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Transformer(config).parameters())


@pytest.mark.parametrize("name", TABLE_2)
def test_presets_are_those_of_table_2(name: str):
    config = preset(name)
    sizes = (config.dim, config.num_heads, config.num_layers, config.hidden_dim, num_parameters(config))
    assert sizes == TABLE_2[name]
    assert (config.vocab_size, config.max_seq_len, config.tie_embeddings) == (32000, 2048, False)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", PRESETS)
def test_presets_build_on_the_meta_device_with_the_counted_parameters(name: str):
    assert count_built(preset(name)) == num_parameters(preset(name))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("num_heads", "num_kv_heads", "head_dim"), [(3, 3, 8), (6, 2, 4), (3, 1, 10)])
def test_counts_hold_for_shared_heads_and_tied_embeddings(num_heads, num_kv_heads, head_dim, tied):
    config = ModelConfig(
        vocab_size=37, dim=24, num_layers=3, num_heads=num_heads, num_kv_heads=num_kv_heads,
        head_dim=head_dim, hidden_dim=50, tie_embeddings=tied,
    )  # fmt: skip
    assert num_parameters(config) == count_built(config)


def test_overrides_replace_fields_and_what_derives_from_them():
    config = preset("7b", dim=3072, num_heads=24, vocab_size=8192)
    assert (config.vocab_size, config.head_dim, config.hidden_dim, config.num_layers) == (8192, 128, 8192, 32)


def test_an_unknown_preset_is_refused_with_the_nearest_name():
    with pytest.raises(
        ConfigError, match=r"unknown model preset `7BB`, did you mean `7b`\?\nhint: presets are 7b"
    ):
        preset("7BB")
