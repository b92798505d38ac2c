"""Causal attention for training in bfloat16 on the CPU, where PyTorch's own backward pass is slow.

Entry points: `causal_attention`, and `suits`, which tells where it pays. Forward is PyTorch's fused kernel.
The backward pass goes over blocks of queries, each against the keys up to its last query only; it forms the
probabilities of a block again from q and k, so that nothing of size T x T is ever kept. Both are operators,
`torch.ops.criadero.causal_attention` and `causal_attention_backward`: a compiler leaves them as they are, and
a policy of recomputation can name the first to keep its output. Letters: B batch, T sequence, H heads,
K key/value heads, G = H / K, E head width, N key/value heads of some sequences, Q and S rows and columns of
a block of scores.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.tensor import DTensor

_BLOCK_TOKENS = 128
_MAX_TOKENS = 1024  # from about twice this on PyTorch's backward pass is as fast
_BLOCK_SCORES = 2**20  # 2 MB in bfloat16: with fewer the calls weigh more, with more caches overflow


def suits(q_BTHE: Tensor) -> bool:
    """Tell whether attention without a mask over these queries should go through `causal_attention`."""
    if isinstance(q_BTHE, DTensor) or not (torch.is_grad_enabled() and q_BTHE.requires_grad):
        return False
    kind = (q_BTHE.device.type, q_BTHE.dtype)
    return kind == ("cpu", torch.bfloat16) and q_BTHE.shape[1] <= _MAX_TOKENS


def causal_attention(q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(E)) v of each head over the tokens up to its own, (B, T, H, E).

    The layout is that of the projections before and after. H is a multiple of K; each key/value head serves
    H / K heads that follow each other.
    """
    out: Tensor = torch.ops.criadero.causal_attention(q_BTHE, k_BTKE, v_BTKE)
    return out


@torch.library.custom_op("criadero::causal_attention", mutates_args=())
def _forward(q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q_BTHE, k_BTKE, v_BTKE))
    out_BHTE = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])
    return out_BHTE.transpose(1, 2).contiguous()


@torch.library.custom_op("criadero::causal_attention_backward", mutates_args=())
def _backward(
    grad_BTHE: Tensor, q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k, v, a few sequences and heads at a time."""
    num_rows, num_tokens, num_heads, _ = q_BTHE.shape
    num_kv_heads = k_BTKE.shape[2]
    group = num_heads // num_kv_heads
    keys_of_heads = (x.unflatten(2, (num_kv_heads, group)) for x in (grad_BTHE, q_BTHE))
    inputs = (*keys_of_heads, k_BTKE, v_BTKE)
    gradients = tuple(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in inputs[1:])
    scores = min(_BLOCK_TOKENS, num_tokens) * num_tokens * group
    heads_at_once = max(1, min(num_kv_heads, _BLOCK_SCORES // scores))
    rows_at_once = max(1, _BLOCK_SCORES // (scores * num_kv_heads))
    for row in range(0, num_rows, rows_at_once):
        for head in range(0, num_kv_heads, heads_at_once):
            part = (slice(row, row + rows_at_once), slice(None), slice(head, head + heads_at_once))
            _backward_of_heads([x[part] for x in inputs], [x[part] for x in gradients])
    d_q, d_k, d_v = gradients
    return d_q.flatten(2, 3), d_k, d_v


def _backward_of_heads(inputs: list[Tensor], gradients: list[Tensor]) -> None:
    """Fill the gradients of q, (B, T, K, G, E), k and v, (B, T, K, E), from those of the output, q, k and v.

    With P = softmax(S), S = scale q k^T and dP = dO v^T: dv = P^T dO, dS = P * (dP - sum(P * dP)),
    dq = scale dS k, dk = scale dS^T q. Sums over queries are kept in float32.
    """
    grad, q, k, v = inputs
    d_q, d_k, d_v = gradients
    num_tokens, group, width = q.shape[1], q.shape[3], q.shape[4]
    scale, zero = width**-0.5, q.new_zeros(1, 1, 1)
    sums_k = sums_v = None
    for start in reversed(range(0, num_tokens, _BLOCK_TOKENS)):  # the last block sees all keys
        block, seen = slice(start, start + _BLOCK_TOKENS), slice(0, min(start + _BLOCK_TOKENS, num_tokens))
        grad_NQE, q_NQE = (_heads_first(x[:, block]) for x in (grad, q))
        k_NSE, v_NSE = (_heads_first(x[:, seen]) for x in (k, v))
        scores_NQS = torch.baddbmm(zero, q_NQE, k_NSE.mT, beta=0, alpha=scale)
        scores_NQS[..., start:] += _future(scores_NQS[..., start:], group)
        p_NQS = torch.softmax(scores_NQS, dim=-1)
        d_p_NQS = torch.bmm(grad_NQE, v_NSE.mT)
        d_scores_NQS = torch.ops.aten._softmax_backward_data(d_p_NQS, p_NQS, -1, p_NQS.dtype)
        d_q_NQE = torch.baddbmm(zero, d_scores_NQS, k_NSE, beta=0, alpha=scale)
        d_q[:, block] = _tokens_first(d_q_NQE, like=d_q[:, block])
        d_k_NSE, d_v_NSE = torch.bmm(d_scores_NQS.mT, q_NQE), torch.bmm(p_NQS.mT, grad_NQE)
        if sums_k is None or sums_v is None:
            sums_k, sums_v = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (d_k_NSE, d_v_NSE))
        else:
            sums_k[:, seen] += d_k_NSE
            sums_v[:, seen] += d_v_NSE
    assert sums_k is not None
    assert sums_v is not None
    d_k.copy_(_tokens_first(sums_k.mul_(scale), like=d_k))
    d_v.copy_(_tokens_first(sums_v, like=d_v))


def _heads_first(x: Tensor) -> Tensor:
    """Return (B, T, K, E) as (N, T, E), and (B, T, K, G, E) as (N, T G, E), the rows of a token together."""
    return x.transpose(1, 2).flatten(0, 1).flatten(1, -2).contiguous()


def _tokens_first(x_NQE: Tensor, *, like: Tensor) -> Tensor:
    """Return the view of (N, T, E) or (N, T G, E) that has the shape of `like`; see `_heads_first`."""
    return x_NQE.view(like.transpose(1, 2).shape).transpose(1, 2)


def _future(scores_NQS: Tensor, group: int) -> Tensor:
    """Return minus infinity where a key comes after the query, else 0, (Q, S); both begin at one token."""
    num_keys = scores_NQS.shape[-1]
    mask = scores_NQS.new_full((num_keys, num_keys), float("-inf")).triu_(1)
    return mask if group == 1 else mask.repeat_interleave(group, dim=0)


@_forward.register_fake
def _(q_BTHE: Tensor, _k_BTKE: Tensor, _v_BTKE: Tensor) -> Tensor:
    return q_BTHE.new_empty(q_BTHE.shape)


@_backward.register_fake
def _(_grad_BTHE: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG001 called so
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, grad_BTHE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.criadero.causal_attention_backward(
        grad_BTHE, *ctx.saved_tensors
    )
    return gradients


_forward.register_autograd(_differentiate, setup_context=_keep)
