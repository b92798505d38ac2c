"""Cross-entropy summed over tokens, computed chunk by chunk so that the logits never exist whole.

`ChunkedCrossEntropy` is the `head` that training passes into the model's forward: it receives the last
hidden states and the output weights. The gradient of a chunk is formed while its logits are at hand,
so nothing of size tokens x vocabulary is kept for the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from criadero.shards.batch import IGNORED


class ChunkedCrossEntropy:
    """Sum of the cross-entropies of all targets that are not IGNORED.

    Args:
        targets_BT: int64 token ids, on the device of the hidden states.
        chunk_tokens: rows of float32 logits that exist at once.
    """

    def __init__(self, targets_BT: Tensor, *, chunk_tokens: int) -> None:
        self._targets_N = targets_BT.reshape(-1)
        self._chunk_tokens = chunk_tokens

    def __call__(self, hidden_BTD: Tensor, weight_VD: Tensor) -> Tensor:
        """Return the summed loss, float32 scalar, nats; differentiable in both arguments."""
        hidden_ND = hidden_BTD.reshape(-1, hidden_BTD.shape[-1])
        needs_gradient = torch.is_grad_enabled() and (hidden_ND.requires_grad or weight_VD.requires_grad)
        loss: Tensor = _SummedLoss.apply(  # type: ignore[no-untyped-call]
            hidden_ND, weight_VD, self._targets_N, self._chunk_tokens, needs_gradient
        )
        return loss


class _SummedLoss(torch.autograd.Function):
    """Loss and both gradients in one pass over chunks; backward only scales them."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, chunk: int, needs_gradient: bool
    ) -> Tensor:
        loss = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        d_hidden_ND = torch.empty_like(hidden_ND) if needs_gradient else None
        d_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if needs_gradient else None
        for start in range(0, len(targets_N), chunk):
            rows = slice(start, start + chunk)
            targets = targets_N[rows]
            kept = (targets != IGNORED).unsqueeze(1)
            indices = targets.clamp(min=0).unsqueeze(1)
            log_p = F.log_softmax(hidden_ND[rows] @ weight_VD.T, dim=1, dtype=torch.float32)
            loss -= torch.where(kept, log_p.gather(1, indices), 0.0).sum()
            if d_hidden_ND is None or d_weight_VD is None:
                continue
            # d loss / d logits = softmax - one-hot, formed in place of the log-probabilities; what is
            # ignored is left out of the two products, which are much smaller.
            gradient = log_p.exp_().scatter_add_(1, indices, log_p.new_full(indices.shape, -1.0))
            gradient = gradient.to(hidden_ND.dtype)
            d_hidden_ND[rows] = (gradient @ weight_VD).masked_fill_(~kept, 0.0)
            d_weight_VD += gradient.T @ hidden_ND[rows].masked_fill(~kept, 0.0)
        ctx.save_for_backward(d_hidden_ND, d_weight_VD)
        return loss

    @staticmethod
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden_ND, d_weight_VD = ctx.saved_tensors
        dtype = d_hidden_ND.dtype
        # Scaled in float32: 1 / tokens rounded to bfloat16 would change the gradient by up to 0.4%.
        d_hidden_ND = (d_hidden_ND.float() * d_loss).to(dtype)
        return d_hidden_ND, (d_weight_VD * d_loss).to(dtype), None, None, None
