"""Ranks that are not there: one process that builds what rank 0 of many would. Entry point: `fake_ranks`.

Collectives return at once and move nothing (PyTorch's own fake process group), so meshes, DTensors and FSDP2
take the shapes they will have on thousands of ranks, and nothing may be computed with them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from criadero.errors import DistributedError


@contextmanager
def fake_ranks(world_size: int) -> Iterator[None]:
    """Be rank 0 of `world_size` ranks inside the block; meshes and models must not outlive it.

    Raises:
        DistributedError: this process is in a process group.
    """
    if dist.is_initialized():
        raise DistributedError(
            "this process has joined real ranks, so it cannot pretend to be one of others",
            hint="start it alone, not under torchrun",
        )
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=world_size)
    try:
        with warnings.catch_warnings():
            # Fake ranks never wait, so a timeout means nothing to them.
            warnings.filterwarnings("ignore", message="Set timeout is now only supported")
            yield
    finally:
        dist.destroy_process_group()
