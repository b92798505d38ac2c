"""The paper's decoder written down as its formulas, slow and in float64: what the model is measured against.

`naive_logits` takes weights under the names of Meta's release, whose RoPE turns neighbouring elements as
complex numbers; `meta_weights` renames and permutes a Transformer's weights into that form. `naive_attention`
is one head's softmax(q k^T / sqrt(E)) v, one query at a time. Nothing here shares code with the package.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

RENAMED = {
    "embedding": "tok_embeddings",
    "feed_forward_norm": "ffn_norm",
    "q_proj": "wq",
    "k_proj": "wk",
    "v_proj": "wv",
    "o_proj": "wo",
    "gate_proj": "w1",
    "down_proj": "w2",
    "up_proj": "w3",
}


def naive_norm(x: Tensor, weight: Tensor, *, eps: float) -> Tensor:
    return x / torch.sqrt((x * x).mean(dim=-1, keepdim=True) + eps) * weight


def naive_swiglu(x: Tensor, *, w1: Tensor, w2: Tensor, w3: Tensor) -> Tensor:
    a = x @ w1.T
    return (a / (1 + torch.exp(-a)) * (x @ w3.T)) @ w2.T


def naive_rope(x_TE: Tensor, *, theta: float) -> Tensor:
    """Turn elements 2i and 2i+1 of position m, as one complex number, by m * theta^(-2i/E)."""
    length, width = x_TE.shape
    frequencies = theta ** (-2 * torch.arange(width // 2, dtype=torch.float64) / width)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
    turned = torch.view_as_complex(x_TE.reshape(length, -1, 2)) * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(turned).reshape(length, width)


def naive_attention(q_TE: Tensor, k_SE: Tensor, v_SE: Tensor, *, mask_TS: Tensor) -> Tensor:
    """One head; True in the mask means that the query of that row sees the key of that column."""
    rows = []
    for q_E, seen_S in zip(q_TE, mask_TS, strict=True):
        scores = k_SE[seen_S] @ q_E / math.sqrt(len(q_E))
        weights = torch.exp(scores - scores.max())
        rows.append((weights / weights.sum()) @ v_SE[seen_S])
    return torch.stack(rows)


def naive_logits(
    weights: Mapping[str, Tensor],
    tokens_T: Tensor,
    *,
    num_heads: int,
    num_kv_heads: int,
    eps: float,
    theta: float,
) -> Tensor:
    """Return the logits (T, V) of one sequence, float64."""
    weights = {name: tensor.double() for name, tensor in weights.items()}
    mask_TT = torch.ones(len(tokens_T), len(tokens_T), dtype=torch.bool).tril()
    x = weights["tok_embeddings.weight"][tokens_T]
    num_layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("layers."))
    for layer in range(num_layers):
        own = {name.split(".", 2)[2]: t for name, t in weights.items() if name.startswith(f"layers.{layer}.")}
        h = naive_norm(x, own["attention_norm.weight"], eps=eps)
        width = len(own["attention.wq.weight"]) // num_heads
        q, k, v = (
            (h @ own[f"attention.{name}.weight"].T).split(width, dim=-1) for name in ("wq", "wk", "wv")
        )
        heads = []
        for head in range(num_heads):
            shared = head * num_kv_heads // num_heads
            q_TE, k_TE = naive_rope(q[head], theta=theta), naive_rope(k[shared], theta=theta)
            heads.append(naive_attention(q_TE, k_TE, v[shared], mask_TS=mask_TT))
        x = x + torch.cat(heads, dim=-1) @ own["attention.wo.weight"].T
        h = naive_norm(x, own["ffn_norm.weight"], eps=eps)
        w1, w2, w3 = (own[f"feed_forward.{name}.weight"] for name in ("w1", "w2", "w3"))
        x = x + naive_swiglu(h, w1=w1, w2=w2, w3=w3)
    output = weights.get("output.weight", weights["tok_embeddings.weight"])
    return naive_norm(x, weights["norm.weight"], eps=eps) @ output.T


def meta_weights(model: nn.Module, *, head_dim: int) -> dict[str, Tensor]:
    """Return a Transformer's weights as Meta would have stored them."""
    weights = {}
    for name, parameter in model.named_parameters():
        renamed = ".".join(RENAMED.get(word, word) for word in name.split("."))
        tensor = parameter.detach()
        if renamed.endswith(("wq.weight", "wk.weight")):
            tensor = interleaved_rows(tensor, head_dim=head_dim)
        weights[renamed] = tensor
    return weights


def interleaved_rows(weight: Tensor, *, head_dim: int) -> Tensor:
    """Reorder the rows of each head from halves to pairs: row 2i was row i, row 2i+1 was row i + E/2."""
    half = head_dim // 2
    order = [row for i in range(half) for row in (i, i + half)]
    return torch.cat([head[order] for head in weight.split(head_dim)])
