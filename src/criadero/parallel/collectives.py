"""Values all ranks agree on: sums, flags, equality, the global gradient norm.

Every function here is a collective: all ranks call it in the same order, or all wait. Objects are only
exchanged among the ranks of this run, never with anybody outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from criadero.errors import CriaderoError, DistributedError
from criadero.parallel.mesh import Mesh

Number = TypeVar("Number", int, float, torch.Tensor)
T = TypeVar("T")


def sum_over_batch(value: Number, mesh: Mesh) -> Number:
    """Add up one value per part of the global batch: ranks that share one (tensor parallelism) count once.

    Python floats are added in float64, ints in int64; a tensor gives a new tensor of its dtype and device.
    """
    return _sum(value, mesh.data_parallel.get_group(), mesh.device)


def sum_over_ranks(value: Number, mesh: Mesh) -> Number:
    """Add up one value per rank of the run, as `sum_over_batch` does; the same bits on all ranks."""
    return _sum(value, dist.group.WORLD, mesh.device)


def _sum(value: Number, group: dist.ProcessGroup | None, device: torch.device) -> Number:
    if isinstance(value, torch.Tensor):
        total = value.detach().clone()
        dist.all_reduce(total, group=group)
        return total
    kind = torch.int64 if isinstance(value, int) else torch.float64
    total = torch.tensor(value, dtype=kind, device=device)
    dist.all_reduce(total, group=group)
    return type(value)(total.item())


def any_rank(flag: bool, mesh: Mesh) -> bool:
    """Return whether any rank of the run raised the flag; the same answer everywhere."""
    raised = torch.tensor(int(flag), dtype=torch.int32, device=mesh.device)
    dist.all_reduce(raised, op=dist.ReduceOp.MAX)
    return bool(raised.item())


def require_same(value_by_name: Mapping[str, str]) -> None:
    """Check that every rank holds the same named values (config, data fingerprint, versions).

    Raises:
        DistributedError: on all ranks; shows each name that differs, with the values and their ranks.
    """
    by_rank = gather(dict(value_by_name), dist.group.WORLD)
    names = sorted({name for values in by_rank for name in values})
    differences = [
        f"`{name}` is {_by_value([values.get(name, '(missing)') for values in by_rank])}"
        for name in names
        if len({values.get(name) for values in by_rank}) > 1
    ]
    if differences:
        raise DistributedError(
            "the ranks disagree:\n" + "\n".join(f"  - {difference}" for difference in differences),
            hint="start all ranks with the same command, config files and data",
        )


def _by_value(values: list[str]) -> str:
    ranks: dict[str, list[int]] = {}
    for rank, value in enumerate(values):
        ranks.setdefault(value, []).append(rank)
    return ", ".join(f"`{value}` on rank {_shorten(places)}" for value, places in ranks.items())


def _shorten(ranks: list[int]) -> str:
    shown = ", ".join(str(rank) for rank in ranks[:4])
    return shown if len(ranks) <= 4 else f"{shown} and {len(ranks) - 4} more"


def gather(value: T, group: dist.ProcessGroup | None) -> list[T]:
    """Return the values of all ranks of `group`, in rank order; None means this process alone."""
    if group is None:
        return [value]
    values: list[T | None] = [None] * group.size()
    dist.all_gather_object(values, value, group=group)
    return cast(list[T], values)


def everywhere(function: Callable[[], T], group: dist.ProcessGroup | None) -> list[T]:
    """Run `function` on every rank and return all results; if it fails on one rank, it fails on all.

    Raises:
        Exception: a failing rank raises its own exception, the others the one of the first failing rank.
    """
    problem: Exception | None = None
    result: T | None = None
    try:
        result = function()
    except Exception as caught:
        problem = caught
    outcomes = gather((result, _portable(problem)), group)
    failures = [failure for _, failure in outcomes if failure is not None]
    if failures:
        raise problem or failures[0]
    return [cast(T, value) for value, _ in outcomes]


def _portable(problem: Exception | None) -> Exception | None:
    """Return an exception that can travel to another rank: of a known class as it is, others as text."""
    if problem is None or isinstance(problem, CriaderoError | OSError):
        return problem
    return DistributedError(f"another rank failed: {type(problem).__name__}: {problem}")


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float, *, mesh: Mesh) -> float:
    """Scale the gradients so that their global norm is at most `max_norm`; return the norm before.

    The norm is over all parameters and all ranks, each replica counted once. If it is not
    finite, the gradients are left alone: the caller decides what to do, with the same answer on all ranks.
    """
    with_gradient = [parameter for parameter in parameters if parameter.grad is not None]
    total = nn.utils.get_total_norm([p.grad for p in with_gradient if p.grad is not None])
    if isinstance(total, DTensor):
        total = total.full_tensor()
    replicas = mesh.grid["dp_replicate"]
    if replicas.size() > 1:
        # Each replica added its norm up by itself, perhaps in another order: a last bit that differed
        # would let their weights drift apart.
        dist.all_reduce(total, op=dist.ReduceOp.MAX, group=replicas.get_group())
    norm = float(total.item())
    if math.isfinite(norm):
        nn.utils.clip_grads_with_norm_(with_gradient, max_norm, total)
    return norm
