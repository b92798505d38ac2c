"""The SwiGLU feed-forward (LLaMA 2.2, "SwiGLU activation function"; Shazeer 2020).

Entry point: `FeedForward`. The paper's w1, w3, w2 are gate_proj, up_proj, down_proj here.
Letters: B batch, T sequence, D model width, F feed-forward width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from criadero.model.config import ModelConfig
from criadero.model.layout import WHOLE, Layout


class FeedForward(nn.Module):
    """down(silu(gate(x)) * up(x)), no biases."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layout: Layout = WHOLE
        self.gate_proj = nn.Linear(config.dim, config.hidden_dim, bias=False)
        self.up_proj = nn.Linear(config.dim, config.hidden_dim, bias=False)
        self.down_proj = nn.Linear(config.hidden_dim, config.dim, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return (B, T, D); the width in between is F."""
        gate_BTF, up_BTF = self.layout.columns(x_BTD, (self.gate_proj, self.up_proj))
        return self.layout.rows(F.silu(gate_BTF) * up_BTF, self.down_proj)
