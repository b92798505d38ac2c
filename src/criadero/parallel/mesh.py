"""The grid of ranks. Entry point: `build_mesh`, called inside `launch.distributed`.

The mesh is always explicit and always has the same three dimensions, on one rank as on thousands:
`dp_replicate` x `dp_shard` x `tp`, the last one fastest, so that tensor parallel ranks are neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from criadero.parallel.config import ParallelConfig
from criadero.parallel.watchdog import collective_timeout


@dataclass(frozen=True)
class Mesh:
    """The ranks as a grid, and this rank's place in it.

    Attributes:
        device: this rank's own device.
        grid: all ranks, dimensions `dp_replicate`, `dp_shard`, `tp`.
        data_parallel: the ranks that read different samples, one dimension `dp` (replicate x shard).
        dp_rank: which part of each global batch this rank reads.
        dp_size: into how many parts each global batch is cut.
    """

    device: torch.device
    grid: DeviceMesh
    data_parallel: DeviceMesh
    dp_rank: int
    dp_size: int

    @property
    def sharding(self) -> DeviceMesh:
        """What `fully_shard` takes: 1-D, or 2-D (hybrid sharding) if there are replicas."""
        if self.grid["dp_replicate"].size() == 1:
            return self.grid["dp_shard"]
        return self.grid["dp_replicate", "dp_shard"]

    @property
    def tensor_parallel(self) -> DeviceMesh:
        """The ranks that share each matrix product, one dimension `tp`."""
        return self.grid["tp"]

    @property
    def sharing_products(self) -> dist.ProcessGroup | None:
        """The process group of `tensor_parallel`; None if that is this rank alone."""
        ranks = self.tensor_parallel
        return None if ranks.size() == 1 else ranks.get_group()

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes logs, metrics and manifests."""
        return dist.get_rank() == 0


def build_mesh(config: ParallelConfig, device: torch.device, *, timeout_seconds: float = 600) -> Mesh:
    """Lay the grid over all ranks of the process group.

    A collective over one of its dimensions waits `timeout_seconds` for the other ranks.

    Raises:
        DistributedError: the dimensions do not multiply to the number of ranks.
    """
    settled = config.settled(dist.get_world_size())
    shape = (settled.dp_replicate, settled.dp_shard, settled.tp)
    grid = init_device_mesh(device.type, shape, mesh_dim_names=("dp_replicate", "dp_shard", "tp"))
    data_parallel = grid["dp_replicate", "dp_shard"]._flatten("dp")
    meshes = [grid, data_parallel]
    if config.tp > 1:
        # Not used here by name: DTensor finds it and sums over both dimensions at once, in clipping.
        meshes.append(grid["dp_shard", "tp"]._flatten("dp_shard_tp"))
    for mesh in meshes:
        _set_timeout(mesh, collective_timeout(device, timeout_seconds))
    return Mesh(device, grid, data_parallel, data_parallel.get_local_rank(), data_parallel.size())


def _set_timeout(mesh: DeviceMesh, timeout: timedelta) -> None:
    """Give the groups of a mesh the run's timeout: new groups start with torch's own, up to 30 minutes."""
    for group in mesh.get_all_groups():
        dist.distributed_c10d._set_pg_timeout(timeout, group)
