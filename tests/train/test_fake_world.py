"""A run built on ranks that are not there has the shards that the arithmetic says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch.distributed as dist

from criadero import config as configuration
from criadero.model.presets import num_parameters
from criadero.train.config import RunConfig
from criadero.train.estimate import estimate
from criadero.train.fake_world import build_on_fake_ranks

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("name", "world_size", "overrides"),
    [
        ("debug", 1, []),
        ("debug", 7, []),
        ("laptop", 24, ["parallel.tp=4"]),
        ("laptop", 24, ["parallel.tp=2", "parallel.dp_replicate=3", "train.recompute=full"]),
        ("laptop", 12, ["model.tie_embeddings=true", "model.num_kv_heads=2", "parallel.tp=2"]),
        ("llama-7b", 50, []),
    ],
)
def test_built_shards_are_what_the_formula_says(name: str, world_size: int, overrides: list[str]):
    config = configuration.load(RunConfig, CONFIGS / f"{name}.toml", overrides)
    built, cost = build_on_fake_ranks(config, world_size), estimate(config, world_size=world_size)
    assert built.parameters == num_parameters(config.model)
    assert built.mesh == cost.mesh
    assert (built.weights, built.gradients, built.optimizer_states) == (
        cost.memory.weights,
        cost.memory.gradients,
        cost.memory.optimizer_states,
    )
    assert not dist.is_initialized()
