"""Whose fault it was when a collective broke. Entry point: `explain`, used by `launch.distributed`.

A rank that fails leaves its reason in the store under which the ranks met; a rank that merely lost
contact reads it, so that the message names the rank to look at and not the first one that noticed.
"""

from __future__ import annotations

import time

import torch.distributed as dist
from torch._C._distributed_c10d import Store

from criadero.errors import DistributedError

_WAIT_SECONDS = 5.0


def explain(problem: BaseException, *, rank: int, world_size: int) -> DistributedError | None:
    """Say which rank caused a broken collective; None if `problem` began on this rank.

    Never a collective: it only reads and writes the store, and gives up after a few seconds.
    """
    if world_size == 1:
        return None
    lost_contact = _is_lost_contact(problem)
    try:
        store = dist.distributed_c10d._get_default_store()
        store.set(f"criadero/left/{rank}", "" if lost_contact else f"{type(problem).__name__}: {problem}")
        if not lost_contact:
            return None
        reasons = _reasons(store, others=[other for other in range(world_size) if other != rank])
    except RuntimeError:
        return DistributedError(f"rank {rank} lost contact with the others; rank 0 is among the lost")
    return DistributedError(
        f"rank {rank} lost contact: {'; '.join(reasons)}", hint="see the log of that rank"
    )


def _is_lost_contact(problem: BaseException) -> bool:
    if isinstance(problem, dist.DistError):
        return True
    return isinstance(problem, RuntimeError) and ("gloo" in str(problem) or "Connection" in str(problem))


def _reasons(store: Store, *, others: list[int]) -> list[str]:
    """Wait until every other rank has said something, or time is up; describe failed and silent ranks."""
    deadline = time.monotonic() + _WAIT_SECONDS
    silent = others
    while silent and time.monotonic() < deadline:
        silent = [other for other in silent if not store.check([f"criadero/left/{other}"])]
        time.sleep(0.05)
    said = {other: store.get(f"criadero/left/{other}").decode() for other in others if other not in silent}
    failed = [f"rank {other} failed ({reason})" for other, reason in said.items() if reason]
    return failed + [f"rank {other} died or hangs" for other in silent] or ["the network failed"]
