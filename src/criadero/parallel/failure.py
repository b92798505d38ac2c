"""Whose fault it was when a collective broke. Entry point: `explain`, used by `launch.distributed`.

A rank that fails leaves its reason in the store under which the ranks met; a rank that merely lost
contact reads it, so that the message names the rank to look at and not the first one that noticed. Where
some rank says nothing, the watchdogs of all ranks are asked what they do.
"""

from __future__ import annotations

import time

import torch.distributed as dist
from torch._C._distributed_c10d import Store

from criadero.errors import DistributedError
from criadero.parallel.watchdog import Watchdog, farewell_key

_WAIT_SECONDS = 2.0


def explain(
    problem: BaseException, *, rank: int, world_size: int, watchdog: Watchdog | None
) -> DistributedError | None:
    """Say which rank caused a broken collective; None if `problem` began on this rank.

    Never a collective: it only reads and writes the store, and gives up after a few seconds.
    """
    if watchdog is None:
        return None
    lost_contact = _is_lost_contact(problem)
    if lost_contact:
        watchdog.give_up(problem)
    try:
        store = dist.distributed_c10d._get_default_store()
        store.set(farewell_key(rank), "" if lost_contact else f"{type(problem).__name__}: {problem}")
        if not lost_contact:
            return None
        others = [other for other in range(world_size) if other != rank]
        if (failed := _reason(store, others)) is not None:
            return DistributedError(f"rank {rank} lost contact: {failed}", hint="see the log of that rank")
        verdict = watchdog.inquire(store)
    except RuntimeError:
        return DistributedError(f"rank {rank} lost contact with the others; rank 0 is among the lost")
    return DistributedError(f"rank {rank} lost contact: {verdict}", hint=watchdog.hint)


def _is_lost_contact(problem: BaseException) -> bool:
    if isinstance(problem, dist.DistError):
        return True
    return isinstance(problem, RuntimeError) and ("gloo" in str(problem) or "Connection" in str(problem))


def _reason(store: Store, others: list[int]) -> str | None:
    """Return which ranks failed and why; None if none says so and some say nothing for a while."""
    deadline = time.monotonic() + _WAIT_SECONDS
    silent = others
    while silent and time.monotonic() < deadline:
        silent = [other for other in silent if not store.check([farewell_key(other)])]
        time.sleep(0.05)
    said = {other: store.get(farewell_key(other)).decode() for other in others if other not in silent}
    failed = "; ".join(f"rank {other} failed ({reason})" for other, reason in said.items() if reason)
    if failed or silent:
        return failed or None
    return "the network failed"
