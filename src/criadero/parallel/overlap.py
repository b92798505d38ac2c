"""Communication of FSDP2 while layers compute (LLaMA 2.4). Entry point: `overlap_communication`.

While a layer works, forward or backward, the weights of the next one are gathered, and while the backward
of a layer runs, the gradients of the one after it are added up over the ranks. On CUDA FSDP2's streams do
this. gloo has no streams, and there FSDP2 waits for each collective: here it is told not to, by its own
asynchronous gather, and by a reduce-scatter that is waited for when the next one begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.fsdp._fully_shard._fsdp_collectives import DefaultReduceScatter

from criadero.parallel.mesh import Mesh


def overlap_communication(model: nn.Module, layers: Sequence[nn.Module], mesh: Mesh) -> None:
    """Make a model that `fully_shard` has cut communicate while it computes; same values bit by bit.

    One layer more than otherwise is whole at a time; on CPU also the gradients of one layer more.

    Args:
        model: the whole, sharded.
        layers: its blocks in the order of the forward pass, each sharded on its own.
        mesh: with replicas, gradients on CPU are added up while nothing else runs: FSDP2 sums over the
            replicas at once what it has summed within one.
    """
    whole, blocks = _sharded(model), [_sharded(layer) for layer in layers]
    for module, following in pairwise([whole, *blocks]):
        module.set_modules_to_forward_prefetch([following])
    for module, following in pairwise([whole, *reversed(blocks)]):
        module.set_modules_to_backward_prefetch([following])
    if mesh.device.type != "cpu":
        return
    whole._set_unshard_async_op(True)
    if mesh.grid["dp_replicate"].size() == 1:
        in_flight = _InFlight()
        for layer, block in zip(layers, blocks, strict=True):
            block.set_custom_reduce_scatter(_LateReduceScatter(layer, in_flight))


def _sharded(module: nn.Module) -> FSDPModule:
    assert isinstance(module, FSDPModule)
    return module


class _InFlight:
    """At most one reduction that has begun and was not waited for."""

    def __init__(self) -> None:
        self._work: dist.Work | None = None

    def wait(self) -> None:
        """Wait for it, if there is one; its result is there only after that."""
        work, self._work = self._work, None
        if work is not None:
            work.wait()

    def hold(self, work: dist.Work) -> None:
        """Wait for `work` when the next one begins, and at the end of this backward pass at the latest."""
        self._work = work
        torch.autograd.Variable._execution_engine.queue_callback(self.wait)


class _LateReduceScatter(DefaultReduceScatter):
    """Adds up a layer's gradients while the backward pass goes on.

    FSDP2 makes its result the parameters' gradients without reading it, unless they have gradients. It would
    read it too early if it had to divide it or to cast it: gradients are summed in the weights' own dtype.
    """

    def __init__(self, layer: nn.Module, in_flight: _InFlight) -> None:
        self._layer, self._in_flight = layer, in_flight

    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: dist.ProcessGroup,
        op: dist.ReduceOp.RedOpType | dist.ReduceOp,
        async_op: bool = True,
    ) -> dist.Work:
        """Begin, after the end of the one before; FSDP2 calls it without `async_op`."""
        self._in_flight.wait()
        work = super().__call__(output_tensor, input_tensor, group, op, async_op)
        if any(parameter.grad is not None for parameter in self._layer.parameters()):
            work.wait()
        else:
            self._in_flight.hold(work)
        return work
