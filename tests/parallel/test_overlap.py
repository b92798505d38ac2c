"""Communication goes on while layers compute, and gives the same gradients bit by bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from criadero.parallel import parallelize as parallelize_module
from criadero.parallel.mesh import Mesh
from criadero.parallel.parallelize import no_sync, parallelize
from ranks import run_ranks
from toy import batch, loss_of, toy

pytestmark = pytest.mark.xdist_group("ranks")


def sharded(mesh: Mesh, make: Callable[[], nn.Module], *, overlap: bool) -> nn.Module:
    model = make()
    keep = parallelize_module.overlap_communication
    if not overlap:
        parallelize_module.overlap_communication = lambda *_: None
    try:
        parallelize(model, mesh, param_dtype=torch.float32)
    finally:
        parallelize_module.overlap_communication = keep
    return model


def gradients(model: nn.Module, mesh: Mesh, *, synced_micro_batches: bool) -> list[torch.Tensor]:
    """Local gradients after two micro-batches, the first of them alone or added up over the ranks too."""
    rows = slice(mesh.dp_rank, mesh.dp_rank + 2)
    first, second = zip(*(t[rows].chunk(2) for t in batch()), strict=True)
    if synced_micro_batches:
        loss_of(model, *first, valid=27).backward()
    else:
        with no_sync(model):
            loss_of(model, *first, valid=27).backward()
    loss_of(model, *second, valid=27).backward()
    found = []
    for parameter in model.parameters():
        assert isinstance(parameter.grad, DTensor)
        found.append(parameter.grad.to_local().clone())
    model.zero_grad()
    return found


def compare_gradients(mesh: Mesh) -> bool:
    for synced_micro_batches in (False, True):
        by_form = []
        for overlap in (False, True):
            model = sharded(mesh, toy, overlap=overlap)
            for _ in range(2):
                found = gradients(model, mesh, synced_micro_batches=synced_micro_batches)
            by_form.append(found)
        for blocking, overlapped in zip(*by_form, strict=True):
            assert torch.equal(blocking, overlapped)
        assert any(gradient.abs().sum() > 0 for gradient in by_form[1])
    return True


@pytest.mark.parametrize(
    ("ranks", "replicas"), [(2, 1), (3, 1), (4, 2)], ids=["2 ranks", "3 ranks", "2 replicas of 2"]
)
def test_gradients_are_bit_equal_to_those_of_waiting_for_each_collective(ranks: int, replicas: int):
    assert run_ranks(compare_gradients, ranks, dp_replicate=replicas) == [True] * ranks
