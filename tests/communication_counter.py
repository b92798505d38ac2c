"""Count what a rank says to others: every collective inside `with CommunicationCounter() as counter`.

It looks at the operators PyTorch dispatches, so it sees FSDP2's own calls, functional collectives, DTensor's
redistributions and plain `torch.distributed` alike. A collective it does not know is an error, never a zero.
Collectives of one rank with itself are left out: they send nothing. Backward passes are seen where they run
in the calling thread, that is on the CPU. `socket_bytes_sent` is what the operating system counted.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch._library.custom_ops import OPDEFS
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

# Operator -> kind, and which argument is the whole tensor (gathered, to be scattered, reduced).
_PLAIN = {
    "_allgather_base_": ("all_gather", 0),
    "allgather_": ("all_gather", 0),
    "allgather_into_tensor_coalesced_": ("all_gather", 0),
    "_reduce_scatter_base_": ("reduce_scatter", 1),
    "reduce_scatter_": ("reduce_scatter", 1),
    "reduce_scatter_tensor_coalesced_": ("reduce_scatter", 1),
    "allreduce_": ("all_reduce", 0),
    "allreduce_coalesced_": ("all_reduce", 0),
    "broadcast_": ("broadcast", 0),
    "alltoall_base_": ("all_to_all", 1),
}
# Functional ones are given their part of an all-gather, and the whole of everything else.
_FUNCTIONAL = {
    "all_gather_into_tensor": "all_gather",
    "all_gather_into_tensor_coalesced": "all_gather",
    "reduce_scatter_tensor": "reduce_scatter",
    "reduce_scatter_tensor_coalesced": "reduce_scatter",
    "all_reduce": "all_reduce",
    "all_reduce_": "all_reduce",
    "all_reduce_coalesced": "all_reduce",
    "broadcast": "broadcast",
    "broadcast_": "broadcast",
    "all_to_all_single": "all_to_all",
}
_SAY_NOTHING = {"barrier", "monitored_barrier_", "wait_tensor", "_wrap_tensor_autograd"}
_TCP_BYTES_SENT = 200  # tcpi_bytes_sent in the kernel's struct tcp_info, since Linux 4.19


@dataclass(frozen=True)
class Counted:
    """One collective: its kind, the mesh dimension it ran over, and the bytes of the whole tensor."""

    kind: str
    dimension: str
    group_size: int
    tensor_bytes: int
    dtype: torch.dtype


class CommunicationCounter(TorchDispatchMode):
    """Records collectives in the order they were issued by this process."""

    def __init__(self) -> None:
        super().__init__()
        self.collectives: list[Counted] = []

    def totals(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Return (kind, dimension) -> (calls, bytes of whole tensors)."""
        calls, total = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        for one in self.collectives:
            calls[one.kind, one.dimension] += 1
            total[one.kind, one.dimension] += one.tensor_bytes
        return {key: (calls[key], total[key]) for key in calls}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # These communicate inside their own dispatch, which comes first and ends here again.
        if any(issubclass(kind, DTensor | AsyncCollectiveTensor) for kind in types):
            return NotImplemented
        own = OPDEFS.get(func._schema.name)
        if own is not None:  # an operator written in Python: look inside
            with self:
                return own._init_fn(*args, **(kwargs or {}))
        name = func._schema.name.partition("::")[2]
        if func.namespace == "c10d" and name not in _SAY_NOTHING:
            kind, whole = _PLAIN[name]
            self._record(kind, _tensors(args[whole]), _group(args))
        elif func.namespace == "_c10d_functional" and name not in _SAY_NOTHING:
            kind, group = _FUNCTIONAL[name], _group(args)
            parts = group.size() if kind == "all_gather" else 1
            self._record(kind, _tensors(args[0]), group, parts=parts)
        return func(*args, **(kwargs or {}))

    def _record(
        self, kind: str, tensors: list[torch.Tensor], group: dist.ProcessGroup, *, parts: int = 1
    ) -> None:
        if group.size() > 1:
            total = sum(tensor.numel() * tensor.element_size() for tensor in tensors) * parts
            dimension = group.group_desc.removeprefix("mesh_")
            self.collectives.append(Counted(kind, dimension, group.size(), total, tensors[0].dtype))


def _tensors(argument: Any) -> list[torch.Tensor]:
    if isinstance(argument, torch.Tensor):
        return [argument]
    return [tensor for item in argument for tensor in _tensors(item)]


def _group(args: Any) -> dist.ProcessGroup:
    """Return the process group among the arguments: boxed, as it is, or by its name, which comes last."""
    for argument in reversed(args):
        if isinstance(argument, dist.ProcessGroup):
            return argument
        if isinstance(argument, torch.ScriptObject) and "ProcessGroup" in str(argument._type()):
            return dist.ProcessGroup.unbox(argument)
        if isinstance(argument, str):
            return dist.distributed_c10d._resolve_process_group(argument)
    raise AssertionError(f"no process group among {args}")


def socket_bytes_sent() -> int:
    """Return the bytes this process has sent over its open TCP sockets, as Linux counts them."""
    total = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if not stat.S_ISSOCK(os.stat(entry).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(entry.name))) as opened:
                if opened.family in (socket.AF_INET, socket.AF_INET6):
                    info = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 512)
                    total += struct.unpack_from("Q", info, _TCP_BYTES_SENT)[0]
        except OSError:  # closed meanwhile, or no TCP
            continue
    return total
