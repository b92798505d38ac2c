"""RMSNorm, applied before attention and before the feed-forward (LLaMA 2.2, "Pre-normalization").

Entry point: `RMSNorm`. The mean of squares and the scaling are computed in float32 whatever the weights
are. Letters: B batch, T sequence, D model width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, over the last dimension (Zhang and Sennrich 2019)."""

    def __init__(self, dim: int, *, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return the normalised (B, T, D) in the dtype of the input."""
        return F.rms_norm(x_BTD, self.weight.shape, self.weight, self.eps)
