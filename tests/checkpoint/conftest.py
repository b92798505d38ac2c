"""A process group of one rank, and values of every kind that a checkpoint must bring back bit by bit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from criadero.parallel.launch import Launch, distributed


@pytest.fixture(scope="module")
def one_rank() -> Iterator[None]:
    with distributed(Launch(), torch.device("cpu"), timeout_seconds=30):
        yield


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    """float32 and bfloat16 with NaN, infinities, -0.0 and denormals; whole numbers; 0-d and empty ones."""
    generator = torch.Generator().manual_seed(1)
    special = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 1e-42])
    weight = torch.randn(5, 3, generator=generator)
    return {
        "model.weight": weight,
        "model.special": special,
        "model.half": torch.cat([weight.flatten(), special]).bfloat16(),
        "optimizer.weight.exp_avg": torch.randn(5, 3, generator=generator),
        "optimizer.step": torch.tensor(12.0),
        "ids": torch.arange(7) - 3,
        "empty": torch.empty(0, 4),
    }
