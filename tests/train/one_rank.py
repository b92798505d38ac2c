"""A mesh of one rank inside the test's own process, for tests of what runs on a mesh."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from criadero.parallel.config import ParallelConfig
from criadero.parallel.launch import Launch, distributed
from criadero.parallel.mesh import Mesh, build_mesh


@contextmanager
def one_rank() -> Iterator[Mesh]:
    with distributed(Launch(), torch.device("cpu"), timeout_seconds=30) as device:
        yield build_mesh(ParallelConfig(), device, timeout_seconds=30)
