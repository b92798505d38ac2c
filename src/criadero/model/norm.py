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

    There the functions below take half the time and keep no float32 copies.
    """
    eager = not torch.compiler.is_compiling() and not isinstance(x, DTensor)
    return x.device.type == "cpu" and x.requires_grad and torch.is_grad_enabled() and eager


class _CPUTrainingNorm(torch.autograd.Function):
    """`rms_norm` that keeps only its input and weight; a few rows at a time, for the caches."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        if len(_blocks(x)) == 1:
            return F.rms_norm(x, weight.shape, weight, eps)
        normalised: Tensor = _norm_in_blocks(x, weight, eps)
        return normalised

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        dtype = torch.promote_types(x.dtype, torch.float32)
        d_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        d_weight = torch.zeros(weight.shape, dtype=dtype, device=x.device)
        for x_ND, grad_ND, d_x_ND in zip(_blocks(x), _blocks(grad), _blocks(d_x), strict=True):
            d_x_ND.copy_(_backward_of_rows(grad_ND, x_ND, weight.to(dtype), eps=ctx.eps, d_weight=d_weight))
        return d_x, d_weight.to(weight.dtype), None


# One operator, because selective recomputation looks at every operator from Python.
@torch.library.custom_op("criadero::norm_in_blocks", mutates_args=())
def _norm_in_blocks(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    for x_ND, out_ND in zip(_blocks(x), _blocks(out), strict=True):
        out_ND.copy_(F.rms_norm(x_ND, weight.shape, weight, eps))
    return out


@_norm_in_blocks.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape)


def _blocks(x: Tensor) -> tuple[Tensor, ...]:
    """Cut into views (N, D) of about 2^17 elements, half a megabyte in float32."""
    blocks: tuple[Tensor, ...] = x.reshape(-1, x.shape[-1]).split(max(1, 2**17 // x.shape[-1]))
    return blocks


def _backward_of_rows(
    grad_ND: Tensor, x_ND: Tensor, weight_D: Tensor, *, eps: float, d_weight: Tensor
) -> Tensor:
    """Return dx, float32, and add these rows' part to `d_weight`.

    With r = 1 / rms and g = grad * x: dweight = sum(r g), dx = r grad weight - r^3 mean(g weight) x.
    """
    dtype = weight_D.dtype
    x_ND, d_x_ND = x_ND.to(dtype), grad_ND.to(dtype, copy=True)
    squares = torch.linalg.vector_norm(x_ND, dim=-1, keepdim=True).square_()
    inverse_rms = squares.div_(x_ND.shape[-1]).add_(eps).rsqrt_()
    g_ND = d_x_ND * x_ND
    d_weight.addmv_(g_ND.T, inverse_rms.squeeze(1))
    overlap = torch.mv(g_ND, weight_D).unsqueeze(1).div_(x_ND.shape[-1]).mul_(inverse_rms**3)
    return d_x_ND.mul_(weight_D).mul_(inverse_rms).addcmul_(x_ND, overlap, value=-1)
