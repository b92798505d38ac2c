"""Ranks that find each other in a store that may be older than they are. Entry point: `meet`.

torchrun starts ranks again and may keep the store under which those before had met: their addresses, and
what they said of a failure, are still in it. How often it did so is no name for a new start, because each
machine counts by itself, and one that joins later begins at zero. So rank 0 invents a name and tells it to
every rank that greets, until all have it.
"""

from __future__ import annotations

import time
from uuid import uuid4

from torch._C._distributed_c10d import PrefixStore, Store

from criadero.errors import DistributedError

_POLL_SECONDS = 0.02


def meet(store: Store, *, rank: int, world_size: int, timeout_seconds: float) -> PrefixStore:
    """Return a view of `store`, empty so far, that all ranks alive now share; all call this at once.

    Raises:
        DistributedError: on rank 0, with the ranks that did not come.
        RuntimeError: torch's own, on the others, after the timeout of the store.
    """
    own = uuid4().hex
    if rank == 0:
        _tell(own, store, list(range(1, world_size)), timeout_seconds=timeout_seconds)
        return PrefixStore(own, store)
    store.set(_greeting(rank), own)
    name = store.get(_answer(own)).decode()
    store.set(_thanks(name, rank), "")
    return PrefixStore(name, store)


def _tell(name: str, store: Store, silent: list[int], *, timeout_seconds: float) -> None:
    """Answer greetings until all have given thanks; what a dead rank left is answered in vain."""
    deadline = time.monotonic() + timeout_seconds
    while silent:
        if time.monotonic() > deadline:
            missing = ", ".join(map(str, silent[:8])) + (", ..." if len(silent) > 8 else "")
            raise DistributedError(
                f"rank 0 waited {timeout_seconds:.0f} s for rank {missing}",
                hint="check that all ranks were started and can reach the machine of rank 0",
            )
        for rank in silent:
            if store.check([_greeting(rank)]):
                store.set(_answer(store.get(_greeting(rank)).decode()), name)
        time.sleep(_POLL_SECONDS)
        silent = [rank for rank in silent if not store.check([_thanks(name, rank)])]


def _greeting(rank: int) -> str:
    return f"criadero/greeting/{rank}"


def _answer(greeting: str) -> str:
    return f"criadero/answer/{greeting}"


def _thanks(name: str, rank: int) -> str:
    return f"criadero/thanks/{name}/{rank}"
