"""A model spread over the mesh with FSDP2. Entry points: `parallelize`, `no_sync`.

Weights and gradients stay float32 and sharded; each layer is gathered in the compute dtype while it works.
Gradients are summed over ranks, not averaged: the loss of each rank is already divided by the number of
valid tokens of the whole global batch, so uneven batches weigh every token the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from criadero.parallel.mesh import Mesh
from criadero.parallel.overlap import overlap_communication


def parallelize(model: nn.Module, mesh: Mesh, *, param_dtype: torch.dtype) -> None:
    """Shard `model` in place: each of `model.layers`, then what is left (embedding, last norm, output).

    Args:
        model: float32 parameters, on any device (meta too); must have an iterable `layers` of modules.
        mesh: parameters become DTensors on `mesh.sharding`, cut along their first dimension; those that
            `share_products` has cut are cut once more.
        param_dtype: what layers compute in; gathered weights are cast to it.
    """
    # Inputs are not cast: tokens are whole numbers and the rotary tables that layers receive stay float32.
    policy = MixedPrecisionPolicy(
        param_dtype=param_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    # On CPU a rank that shards with nobody keeps the cast weights from forward to backward.
    alone_on_cpu = mesh.grid["dp_shard"].size() == 1 and mesh.device.type == "cpu"
    reshard = False if alone_on_cpu else None  # None is FSDP2's own choice
    for module in (*layers_of(model), model):
        fully_shard(module, mesh=mesh.sharding, mp_policy=policy, reshard_after_forward=reshard)
    for sharded in _sharded(model) if mesh.dp_size > 1 else ():  # alone, FSDP2 sums without being told
        sharded.set_gradient_divide_factor(1.0)
        # gloo refuses the multiply-and-sum that the line above asks for by itself; a plain sum is the same.
        sharded.set_force_sum_reduction_for_comms(True)
    overlap_communication(model, layers_of(model), mesh)


def layers_of(model: nn.Module) -> list[nn.Module]:
    """Return the repeated blocks of `model`, each of which is sharded and compiled on its own."""
    layers = model.layers
    assert isinstance(layers, nn.ModuleList)
    return list(layers)


def _sharded(model: nn.Module) -> list[FSDPModule]:
    modules: Iterable[object] = model.modules()
    return [module for module in modules if isinstance(module, FSDPModule)]


@contextmanager
def no_sync(model: nn.Module) -> Iterator[None]:
    """Accumulate gradients of a backward inside the block without communication.

    For all micro-batches but the last. Each rank then holds full gradients in the reduce dtype until the
    backward outside the block adds them up over ranks.
    """
    assert isinstance(model, FSDPModule)
    model.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        model.set_requires_gradient_sync(True)
