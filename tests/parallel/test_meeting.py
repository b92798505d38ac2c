"""Ranks that are started again meet each other, and nothing of the ranks before them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch._C._distributed_c10d import HashStore, PrefixStore

from criadero.errors import DistributedError
from criadero.parallel.meeting import meet


def all_meet(store: HashStore, *, world_size: int) -> list[PrefixStore]:
    with ThreadPoolExecutor(world_size) as threads:
        started = [
            threads.submit(meet, store, rank=rank, world_size=world_size, timeout_seconds=20)
            for rank in reversed(range(world_size))
        ]
        return [one.result() for one in reversed(started)]


@pytest.fixture
def store() -> HashStore:
    store = HashStore()
    store.set_timeout(timedelta(seconds=20))
    return store


def test_all_ranks_read_what_one_of_them_wrote(store: HashStore):
    views = all_meet(store, world_size=3)
    views[1].set("address", "here")
    assert [view.get("address") for view in views] == [b"here"] * 3


def test_ranks_started_again_in_the_same_store_find_nothing_of_those_before(store: HashStore):
    for view in all_meet(store, world_size=3):
        view.set("address", "of the dead")
    again = all_meet(store, world_size=2)
    assert not any(view.check(["address"]) for view in again)
    again[1].set("address", "here")
    assert again[0].get("address") == b"here"


def test_a_greeting_that_a_dead_rank_left_does_not_count(store: HashStore):
    all_meet(store, world_size=3)
    with pytest.raises(DistributedError, match="rank 0 waited 0 s for rank 1, 2\n"):
        meet(store, rank=0, world_size=3, timeout_seconds=0.2)
