"""The part of a tensor that one rank holds: cut out for saving, filled in place by loading.

Entry point: `shard_of`. A plain tensor is a shard that covers all of it, so one rule serves both; plain
tensors and replicas are held by several ranks, and one of them writes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset


@dataclass(frozen=True)
class Shard:
    """A box of a tensor.

    Attributes:
        local: the values this rank holds, sharing memory with the tensor they come from.
        shape: the shape of the whole tensor.
        offsets: where `local` begins in it, one number per dimension.
    """

    local: torch.Tensor
    shape: tuple[int, ...]
    offsets: tuple[int, ...]

    def cloned_to_cpu(self) -> Shard:
        """Return a copy in main memory that later training steps do not change."""
        return replace(self, local=self.local.to("cpu", copy=True).contiguous())

    @property
    def dtype(self) -> str:
        """The name of the torch dtype: `bfloat16`."""
        return str(self.local.dtype).removeprefix("torch.")

    @property
    def global_bytes(self) -> int:
        """Size of the whole tensor."""
        return math.prod(self.shape) * self.local.element_size()

    def __create_write_items__(self, fqn: str, _object: object) -> list[WriteItem]:
        """Tell `torch.distributed.checkpoint` what to write: its protocol for other things than tensors."""
        if self.local.numel() == 0:
            return []
        offsets = torch.Size(self.offsets)
        chunk = ChunkStorageMetadata(offsets=offsets, sizes=self.local.size())
        data = TensorWriteData(
            chunk=chunk, properties=TensorProperties(dtype=self.local.dtype), size=torch.Size(self.shape)
        )
        return [WriteItem(index=MetadataIndex(fqn, offsets), type=WriteItemType.SHARD, tensor_data=data)]


def shard_of(tensor: torch.Tensor) -> Shard:
    """Return what this rank holds of `tensor`, which may be a DTensor with any placements."""
    if not isinstance(tensor, DTensor):
        return Shard(tensor.detach(), tuple(tensor.shape), (0,) * tensor.dim())
    _, offsets = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return Shard(cast(DTensor, tensor.detach()).to_local(), tuple(tensor.shape), tuple(offsets))
