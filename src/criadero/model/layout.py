"""How the ranks that share one copy of the model share its matrix products: the seam for tensor parallelism.

Entry points: `Layout`, what the model asks for, and `WHOLE`, its answers where a rank holds every matrix
whole. `parallel.tensor_parallel` has the answers where it holds a part. Letters: B batch, T sequence, t the
part of the sequence that a rank holds between matrix products (t = T here), D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Layout(Protocol):
    """The places of the decoder at which ranks that share it must meet."""

    def embed(self, tokens_BT: Tensor, embedding: nn.Embedding) -> Tensor:
        """Return the embeddings (B, t, D) of token ids."""
        ...

    def columns(self, x_BtD: Tensor, linears: Sequence[nn.Module]) -> list[Tensor]:
        """Apply layers that all take `x`; each result is (B, T, its width on this rank)."""
        ...

    def rows(self, x: Tensor, linear: nn.Module) -> Tensor:
        """Apply the layer that brings results of `columns` together again: (B, t, D)."""
        ...

    def gather(self, x_BtD: Tensor) -> Tensor:
        """Return the whole sequence (B, T, D)."""
        ...

    def gain(self, weight_D: Tensor) -> Tensor:
        """Return the weight of a norm that works on (B, t, D)."""
        ...

    def part(self, weight_VD: Tensor) -> Tensor:
        """Return the rows of the output matrix that this rank works with."""
        ...


class Whole:
    """Every matrix is whole, so there is nobody to meet."""

    def embed(self, tokens_BT: Tensor, embedding: nn.Embedding) -> Tensor:
        """Look rows up."""
        return embedding(tokens_BT)  # type: ignore[no-any-return]

    def columns(self, x_BtD: Tensor, linears: Sequence[nn.Module]) -> list[Tensor]:
        """Apply each layer."""
        if _adding_up_pays(x_BtD, linears):
            return list(_CPUColumns.apply(x_BtD, *(linear.weight for linear in linears)))  # type: ignore[no-untyped-call]
        return [linear(x_BtD) for linear in linears]

    def rows(self, x: Tensor, linear: nn.Module) -> Tensor:
        """Apply the layer."""
        return linear(x)  # type: ignore[no-any-return]

    def gather(self, x_BtD: Tensor) -> Tensor:
        """Return `x` itself."""
        return x_BtD

    def gain(self, weight_D: Tensor) -> Tensor:
        """Return the weight itself."""
        return weight_D

    def part(self, weight_VD: Tensor) -> Tensor:
        """Return the weight itself."""
        return weight_VD


WHOLE = Whole()


def _adding_up_pays(x: Tensor, linears: Sequence[nn.Module]) -> bool:
    """Tell whether layers that take the same `x` are differentiated as one: in eager training on the CPU."""
    if torch.compiler.is_compiling() or not (torch.is_grad_enabled() and x.requires_grad):
        return False
    return x.device.type == "cpu" and all(type(linear) is nn.Linear for linear in linears)


class _CPUColumns(torch.autograd.Function):
    """y_i = x W_i^T. Backward adds dx = sum(dy_i W_i) up inside the products, not in passes of its own."""

    @staticmethod
    def forward(ctx: Any, x_BTD: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x_BTD, *weights)
        return tuple(F.linear(x_BTD, weight) for weight in weights)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        x_BTD, *weights = ctx.saved_tensors
        x_ND = x_BTD.flatten(0, -2)
        return sum_of_products(grads, weights), *(grad.flatten(0, -2).T @ x_ND for grad in grads)


def sum_of_products(grads: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Return the sum of `grad @ weight`, (B, T, D), of each grad (B, T, rows) and weight (rows, D).

    It is added up inside the products, in their accuracy.
    """
    total_ND = grads[0].flatten(0, -2) @ weights[0]
    for grad, weight in zip(grads[1:], weights[1:], strict=True):
        total_ND.addmm_(grad.flatten(0, -2), weight)
    return total_ND.view(*grads[0].shape[:-1], total_ND.shape[-1])
