"""Sharded training gives the gradients, norms and steps of one plain process."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from criadero.errors import DistributedError
from criadero.parallel import collectives
from criadero.parallel.config import ParallelConfig
from criadero.parallel.launch import Launch, distributed
from criadero.parallel.mesh import Mesh, build_mesh
from criadero.parallel.parallelize import no_sync, parallelize
from ranks import run_ranks
from toy import batch, loss_of, toy


def reference() -> tuple[dict[str, torch.Tensor], float]:
    model = toy()
    tokens_BT, targets_BT = batch()
    loss_of(model, tokens_BT, targets_BT, valid=int((targets_BT >= 0).sum())).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    norm = torch.sqrt(sum((g.double() ** 2).sum() for g in gradients.values()))
    return gradients, float(norm)


def backward(model: nn.Module, mesh: Mesh, *, micro_batches: int) -> None:
    """This rank's rows of the batch, in micro-batches, divided by the global number of valid tokens."""
    tokens_BT, targets_BT = (t[mesh.dp_rank :: mesh.dp_size] for t in batch())
    valid = collectives.sum_over_batch(int((targets_BT >= 0).sum()), mesh)
    pieces = list(zip(tokens_BT.chunk(micro_batches), targets_BT.chunk(micro_batches), strict=True))
    with no_sync(model):
        for tokens, targets in pieces[:-1]:
            loss_of(model, tokens, targets, valid=valid).backward()
    loss_of(model, *pieces[-1], valid=valid).backward()


def gathered(model: nn.Module) -> dict[str, torch.Tensor]:
    """Full gradients on every rank."""
    gradients = {}
    for name, parameter in model.named_parameters():
        assert isinstance(parameter.grad, DTensor)
        gradients[name] = parameter.grad.full_tensor()
    return gradients


def check_gradients(mesh: Mesh) -> None:
    expected, norm = reference()
    for micro_batches in (1, 2):
        model = toy()
        parallelize(model, mesh, param_dtype=torch.float32)
        backward(model, mesh, micro_batches=micro_batches)
        actual = gathered(model)
        assert actual.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(actual[name], gradient, rtol=0, atol=1e-6, msg=name)
        assert collectives.clip_gradients(model.parameters(), norm / 2, mesh=mesh) == pytest.approx(
            norm, rel=1e-6
        )
        for name, gradient in gathered(model).items():
            torch.testing.assert_close(gradient, expected[name] / 2, rtol=1e-4, atol=1e-7, msg=name)


def check_bfloat16(mesh: Mesh) -> None:
    expected, _ = reference()
    model = toy()
    parallelize(model, mesh, param_dtype=torch.bfloat16)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert model(batch()[0]).dtype == torch.bfloat16
    backward(model, mesh, micro_batches=1)
    for name, gradient in gathered(model).items():
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, expected[name], rtol=0.1, atol=0.02, msg=name)


def check_agreement(mesh: Mesh) -> None:
    size = mesh.dp_size
    assert collectives.sum_over_ranks(0.1 * (mesh.dp_rank + 1), mesh) == pytest.approx(
        sum(0.1 * (r + 1) for r in range(size)), abs=1e-15
    )
    assert collectives.sum_over_ranks(2**53 + mesh.dp_rank, mesh) == size * 2**53 + sum(range(size))
    ones = torch.ones(3)
    assert collectives.sum_over_ranks(ones, mesh).tolist() == [size] * 3
    assert ones.tolist() == [1, 1, 1]
    assert collectives.any_rank(mesh.dp_rank == size - 1, mesh) is True
    assert collectives.any_rank(False, mesh) is False
    collectives.require_same({"seed": "1", "learning rate": "0.1"})
    if size > 1:
        with pytest.raises(DistributedError, match=r"`learning rate` is `0.1` on rank 0.*, `0.2` on rank 1"):
            collectives.require_same({"seed": "1", "learning rate": "0.2" if mesh.dp_rank == 1 else "0.1"})
        with pytest.raises(OSError, match="disk on rank 1"):
            collectives.everywhere(lambda: fail_on_one(mesh.dp_rank), torch.distributed.group.WORLD)


def fail_on_one(rank: int) -> None:
    if rank == 1:
        raise OSError(28, "disk on rank 1")


def check_everything(mesh: Mesh) -> tuple[int, int]:
    check_agreement(mesh)
    check_gradients(mesh)
    check_bfloat16(mesh)
    if mesh.dp_size == 2:
        check_gradients(build_mesh(ParallelConfig(dp_replicate=2), mesh.device))
    return mesh.dp_rank, mesh.dp_size


@pytest.mark.parametrize("world_size", [2, 3])
def test_gradients_norms_and_sums_equal_those_of_one_process(world_size: int):
    results = run_ranks(check_everything, world_size)
    assert results == [(rank, world_size) for rank in range(world_size)]


def train(model: nn.Module, mesh: Mesh | None) -> list[torch.Tensor]:
    tokens_BT, targets_BT = batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(3):
        loss_of(model, tokens_BT, targets_BT, valid=27).backward()
        if mesh is None:
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        else:
            collectives.clip_gradients(model.parameters(), 0.5, mesh=mesh)
        optimizer.step()
        optimizer.zero_grad()
    return [p.full_tensor() if isinstance(p, DTensor) else p for p in model.parameters()]


def train_sharded(device: torch.device) -> list[torch.Tensor]:
    mesh = build_mesh(ParallelConfig(), device)
    check_agreement(mesh)
    model = toy()
    parallelize(model, mesh, param_dtype=torch.float32)
    return train(model, mesh)


def test_one_rank_through_the_mesh_trains_bit_equal_to_a_plain_model():
    expected = train(copy.deepcopy(toy()), None)
    with distributed(Launch(), torch.device("cpu"), timeout_seconds=30) as device:
        actual = train_sharded(device)
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))
    assert not torch.distributed.is_initialized()


def poison(device: torch.device) -> tuple[float, list[float]]:
    model, mesh = toy(), build_mesh(ParallelConfig(), device)
    parallelize(model, mesh, param_dtype=torch.float32)
    loss_of(model, *batch(), valid=1).backward()
    with torch.no_grad():
        model.output.weight.grad[2, 1] = float("nan")
    before = [p.grad.full_tensor() for p in model.parameters()]
    norm = collectives.clip_gradients(model.parameters(), 0.1, mesh=mesh)
    after = [p.grad.full_tensor() for p in model.parameters()]
    return norm, [torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(after, before, strict=True)]


def clip_by_a_norm_of_ones_own(mesh: Mesh) -> float:
    """Each replica adds its norm up in another order, which a rounded bit stands for here."""
    model = toy()
    parallelize(model, mesh, param_dtype=torch.float32)
    backward(model, mesh, micro_batches=1)
    exact, nn.utils.get_total_norm = nn.utils.get_total_norm, lambda _: torch.tensor(1 + 1e-6 * mesh.dp_rank)
    try:
        return collectives.clip_gradients(model.parameters(), 0.5, mesh=mesh)
    finally:
        nn.utils.get_total_norm = exact


def test_replicas_clip_by_the_same_norm_to_the_last_bit():
    norms = run_ranks(clip_by_a_norm_of_ones_own, 2, dp_replicate=2)
    assert norms[0] == norms[1] > 1


def test_gradients_that_are_not_finite_are_left_alone():
    with distributed(Launch(), torch.device("cpu"), timeout_seconds=30) as device:
        norm, same = poison(device)
    assert math.isnan(norm)
    assert all(same)


def test_a_layout_that_does_not_fit_the_ranks_is_refused():
    with (
        pytest.raises(DistributedError, match=r"dp_replicate=1 x dp_shard=2 x tp=1 .* 1 ranks"),
        distributed(Launch(), torch.device("cpu"), timeout_seconds=30) as device,
    ):
        build_mesh(ParallelConfig(dp_shard=2), device)
    assert not torch.distributed.is_initialized()
