"""RMSNorm, applied before attention and before the feed-forward (LLaMA 2.2, "Pre-normalization").

Entry point: `RMSNorm`. The mean of squares and the scaling are computed in float32 whatever the weights are.
Letters: B batch, T sequence, D model width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from criadero.model.layout import WHOLE, Layout


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, over the last dimension (Zhang and Sennrich 2019)."""

    def __init__(self, dim: int, *, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.layout: Layout = WHOLE
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return the normalised (B, T, D) in the dtype of the input."""
        weight_D = self.layout.gain(self.weight)
        if _torch_is_slow_for(x_BTD):
            normalised: Tensor = _CPUTrainingNorm.apply(x_BTD, weight_D, self.eps)  # type: ignore[no-untyped-call]
            return normalised
        return F.rms_norm(x_BTD, weight_D.shape, weight_D, self.eps)


def _torch_is_slow_for(x: Tensor) -> bool:
    """Tell whether torch would differentiate the norm operator by operator: eager training on the CPU.

    There the backward written out below takes two thirds of the time and keeps no float32 copies.
    """
    eager = not torch.compiler.is_compiling() and not isinstance(x, DTensor)
    return x.device.type == "cpu" and x.requires_grad and torch.is_grad_enabled() and eager


class _CPUTrainingNorm(torch.autograd.Function):
    """`rms_norm` that keeps only its input and weight for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return F.rms_norm(x, weight.shape, weight, eps)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """With n = x / rms, h = grad * weight: dx = (h - n * mean(h * n)) / rms, dweight = sum(grad * n)."""
        x, weight = ctx.saved_tensors
        dtype = torch.promote_types(x.dtype, torch.float32)
        normalised, grad = x.to(dtype, copy=True), grad.to(dtype, copy=True)
        squares = torch.linalg.vector_norm(normalised, dim=-1, keepdim=True).square_()
        inverse_rms = squares.div_(x.shape[-1]).add_(ctx.eps).rsqrt_()
        normalised.mul_(inverse_rms)
        grad_weight = (grad * normalised).flatten(0, -2).sum(0)
        grad.mul_(weight)
        overlap = (grad * normalised).mean(-1, keepdim=True)
        grad_x = grad.addcmul_(normalised, overlap, value=-1).mul_(inverse_rms)
        return grad_x.to(x.dtype), grad_weight.to(weight.dtype), None
