"""A run built as on its real number of ranks, without them. Entry point: `build_on_fake_ranks`.

Mesh, tensor parallelism, recomputation and FSDP2 are composed by the code that trains; sizes are read off
the shards that rank 0 then has. Everything is on the meta device, so 65B on 2,048 ranks takes seconds and no
memory to speak of. `criadero train CONFIG --dry-run --fake-world-size N` comes here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from criadero.parallel.fake import fake_ranks
from criadero.parallel.mesh import build_mesh
from criadero.train.build import shape_model
from criadero.train.config import RunConfig
from criadero.train.optimizer import make_optimizer, optimizer_tensors


@dataclass(frozen=True)
class BuiltRank:
    """What rank 0 holds.

    Attributes:
        parameters: of the whole model.
        mesh: size of each dimension by name.
        weights, gradients, optimizer_states: bytes of the local shards.
    """

    parameters: int
    mesh: dict[str, int]
    weights: int
    gradients: int
    optimizer_states: int


def build_on_fake_ranks(config: RunConfig, world_size: int) -> BuiltRank:
    """Build rank 0 of `world_size` ranks, with gradients and optimizer states.

    Raises:
        DistributedError: the mesh does not fit the number of ranks.
    """
    with fake_ranks(world_size):
        return _build(config)


def _build(config: RunConfig) -> BuiltRank:
    mesh = build_mesh(config.parallel, torch.device("cpu"))
    model = shape_model(config, mesh, kernels=False)
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    states = optimizer_tensors(model, make_optimizer(model, config.optimizer))
    sizes = zip(mesh.grid.mesh_dim_names or (), mesh.grid.shape, strict=True)
    return BuiltRank(
        parameters=sum(parameter.numel() for parameter in parameters),
        mesh={name: int(size) for name, size in sizes},
        weights=_local_bytes(parameters),
        gradients=_local_bytes(gradients),
        optimizer_states=_local_bytes(states.values()),
    )


def _local_bytes(tensors: Iterable[Tensor]) -> int:
    return sum((t.to_local() if isinstance(t, DTensor) else t).nbytes for t in tensors)
