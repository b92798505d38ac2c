"""When a rank fails, dies or hangs, the others stop within the timeout and name it."""

from __future__ import annotations

import os
import time

import pytest
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from criadero.parallel import watchdog
from criadero.parallel.mesh import Mesh
from criadero.parallel.watchdog import Watchdog, farewell_key
from ranks import run_until_end


def fall_silent(mesh: Mesh, how: str) -> None:
    if mesh.dp_rank == 1:
        if how == "dies":
            os._exit(3)
        if how == "fails":
            raise ValueError("record 17 is broken")
        time.sleep(100)
    dist.barrier()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("dies", "rank 1 died or hangs"),
        ("hangs", "rank 1 ("),
        ("fails", "rank 1 failed (ValueError: record 17 is broken)"),
    ],
)
def test_the_other_ranks_stop_and_name_the_one_at_fault(how: str, said: str):
    # The harness kills a rank that outlives its timeout, and then there is no answer and no exit code 0.
    # One that hangs is ended by its watchdog; tests/parallel/test_watchdog.py looks at what is said of it.
    first, second = run_until_end(fall_silent, 2, how, timeout=60, collective_seconds=3)
    assert first.exit_code == 0  # the harness caught the error: no abort, no hang
    assert first.failure is not None
    assert f"DistributedError: rank 0 lost contact: {said}" in first.failure
    if how == "fails":
        assert second.failure is not None
        assert second.failure.rstrip().endswith("ValueError: record 17 is broken")


@pytest.mark.parametrize(
    ("farewells", "said"),
    [
        ({1: "ValueError: record 17 is broken", 2: ""}, "rank 1 failed (ValueError: record 17 is broken)"),
        ({2: ""}, "rank 1 died or hangs"),
    ],
)
def test_of_ranks_that_answer_no_more_one_that_said_why_it_failed_is_named_with_its_reason(
    farewells: dict[int, str], said: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watchdog, "_ANSWER_SECONDS", 0.2)
    store = HashStore()
    for rank, reason in farewells.items():
        store.set(farewell_key(rank), reason)
    assert Watchdog(store, rank=0, world_size=3).inquire(store) == said
