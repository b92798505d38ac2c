"""Tensor and sequence parallelism: ranks that share each matrix product (LLaMA 2.4, item 3).

Entry point: `share_products`, before anything else is done to a model. Parameters become DTensors, so that
FSDP2, the optimizer, clipping and checkpoints know which part is whose; activations stay plain tensors and
meet in the operators of `exchange`. As in Korthikanti et al. (2022): q, k, v, gate and up are
cut by rows of their weight, o and down by columns; between these pairs a rank holds a part of the sequence.
Letters: B batch, T sequence, t the part of it that a rank holds, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard, distribute_tensor

from criadero.errors import DataError
from criadero.model.attention import Attention
from criadero.model.feed_forward import FeedForward
from criadero.model.norm import RMSNorm
from criadero.model.transformer import Transformer
from criadero.parallel import exchange
from criadero.parallel.mesh import Mesh

_CUT_BY_COLUMNS = ("o_proj", "down_proj")


@dataclass(frozen=True)
class TensorParallel:
    """`model.layout.Layout` of a rank that holds a part of each matrix; weights are DTensors on `tp`.

    Attributes:
        group: name of the process group of the ranks that share the products.
        rank: this rank among them.
        size: how many they are.
        chunks: into how many blocks the sequence is cut, so that moving one overlaps with working on another.
    """

    group: str
    rank: int
    size: int
    chunks: int

    def embed(self, tokens_BT: Tensor, embedding: nn.Embedding) -> Tensor:
        """Look up the rows this rank holds, add up over ranks: (B, t, D).

        Raises:
            DataError: the sequence cannot be cut evenly; on all ranks, before they meet.
        """
        self._require_even(tokens_BT.shape[1])
        weight = _local(embedding.weight, Shard(0))
        row_BT = tokens_BT - self.rank * weight.shape[0]
        elsewhere_BT = (row_BT < 0) | (row_BT >= weight.shape[0])
        x_BTD = F.embedding(row_BT.masked_fill(elsewhere_BT, 0), weight)
        x_BTD = x_BTD.masked_fill(elsewhere_BT.unsqueeze(-1), 0.0)
        return exchange.add_up(x_BTD, self.group, self.chunks)  # type: ignore[no-any-return]

    def columns(self, x_BtD: Tensor, linears: Sequence[nn.Module]) -> list[Tensor]:
        """Gather the sequence and multiply it with this rank's rows of each weight: (B, T, rows) each."""
        weights = [_local(linear.weight, Shard(0)) for linear in linears]
        return exchange.gather_and_multiply(x_BtD, weights, self.group, self.chunks)  # type: ignore[no-any-return]

    def rows(self, x: Tensor, linear: nn.Module) -> Tensor:
        """Multiply with this rank's columns of the weight and add up over ranks: (B, t, D)."""
        weight = _local(linear.weight, Shard(1))
        return exchange.multiply_and_add_up(x, weight, self.group, self.chunks)  # type: ignore[no-any-return]

    def gather(self, x_BtD: Tensor) -> Tensor:
        """Return the whole sequence (B, T, D); its gradient is added up over ranks."""
        return exchange.gather(x_BtD, self.group, self.chunks)  # type: ignore[no-any-return]

    def gain(self, weight_D: Tensor) -> Tensor:
        """Return the weight itself; each rank's gradient is of its part of the sequence."""
        return _local(weight_D, Partial())

    def part(self, weight_VD: Tensor) -> Tensor:
        """Return this rank's V / tp rows of the output matrix."""
        return _local(weight_VD, Shard(0))

    def _require_even(self, seq_len: int) -> None:
        # gloo ends the process without a word if ranks bring tensors of different sizes.
        if seq_len % (self.size * self.chunks):
            raise DataError(
                f"a sequence of {seq_len} tokens cannot be cut into parallel.tp x parallel.tp_chunks = "
                f"{self.size} x {self.chunks} equal parts",
                hint=f"pad it to a multiple of {self.size * self.chunks}, with targets that are ignored",
            )


def share_products(model: Transformer, mesh: Mesh, *, chunks: int) -> None:
    """Cut the matrices of `model` over `mesh.tensor_parallel`, in place; one rank changes nothing.

    Args:
        model: on any device (meta too), the same values on every rank; names of parameters stay.
        mesh: parameters become DTensors on its dimension `tp`.
        chunks: see `TensorParallel`; 1 exchanges the sequence in one piece.
    """
    ranks = mesh.tensor_parallel
    if ranks.size() == 1:
        return
    group = ranks.get_group().group_name
    layout = TensorParallel(group, ranks.get_local_rank(), ranks.size(), chunks)
    for path, module in model.named_modules():
        if isinstance(module, Transformer | Attention | FeedForward | RMSNorm):
            module.layout = layout
        for name, parameter in list(module.named_parameters(recurse=False)):
            placement = _placement(path.rpartition(".")[2], parameter)
            part = distribute_tensor(parameter.detach(), ranks, [placement], src_data_rank=None)
            module.register_parameter(name, nn.Parameter(part))


def _placement(module_name: str, parameter: Tensor) -> Placement:
    """Say how the parameter of a module is cut: gains not at all, matrices by rows or columns."""
    if parameter.ndim == 1:
        return Replicate()
    return Shard(1) if module_name in _CUT_BY_COLUMNS else Shard(0)


def _local(weight: Tensor | nn.Module, of_gradient: Placement) -> Tensor:
    """Return this rank's part of a weight; `of_gradient` says what its gradient is a part of."""
    return cast(DTensor, weight).to_local(grad_placements=[of_gradient])
