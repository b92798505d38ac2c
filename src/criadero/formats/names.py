"""What each format calls a tensor, and the one layout that differs: the rows of q and k.

Entry points: `native_name` (theirs to ours), `foreign_name` (ours to theirs), `interleaved_to_halves` and its
inverse, `halves_to_interleaved`.
Ours are the parameter names of `criadero.model.transformer.Transformer`. Meta and GGUF rotate neighbouring
pairs of a head's rows, (0, 1), (2, 3), ...; Hugging Face and we rotate a row with the one half a head away.
"""

from __future__ import annotations

import re
from typing import Literal

from torch import Tensor

Dialect = Literal["huggingface", "meta", "gguf"]

# ours, Hugging Face, Meta, GGUF; all end in `.weight`.
_MODEL = (
    ("embedding", "model.embed_tokens", "tok_embeddings", "token_embd"),
    ("norm", "model.norm", "norm", "output_norm"),
    ("output", "lm_head", "output", "output"),
)
_LAYER = (
    ("attention_norm", "input_layernorm", "attention_norm", "attn_norm"),
    ("attention.q_proj", "self_attn.q_proj", "attention.wq", "attn_q"),
    ("attention.k_proj", "self_attn.k_proj", "attention.wk", "attn_k"),
    ("attention.v_proj", "self_attn.v_proj", "attention.wv", "attn_v"),
    ("attention.o_proj", "self_attn.o_proj", "attention.wo", "attn_output"),
    ("feed_forward_norm", "post_attention_layernorm", "ffn_norm", "ffn_norm"),
    ("feed_forward.gate_proj", "mlp.gate_proj", "feed_forward.w1", "ffn_gate"),
    ("feed_forward.up_proj", "mlp.up_proj", "feed_forward.w3", "ffn_up"),
    ("feed_forward.down_proj", "mlp.down_proj", "feed_forward.w2", "ffn_down"),
)
_COLUMN: dict[Dialect, int] = {"huggingface": 1, "meta": 2, "gguf": 3}
_LAYER_PREFIX: dict[Dialect, str] = {"huggingface": "model.layers.", "meta": "layers.", "gguf": "blk."}
_LAYER_NAME = re.compile(r"(\d{1,6})\.(.+)\.weight")


def native_name(name: str, dialect: Dialect) -> str | None:
    """Return our name of a tensor of `dialect`, or None when LLaMA has no such tensor."""
    column, prefix = _COLUMN[dialect], _LAYER_PREFIX[dialect]
    if name.startswith(prefix):
        match = _LAYER_NAME.fullmatch(name.removeprefix(prefix))
        ours = match and next((row[0] for row in _LAYER if row[column] == match[2]), None)
        return f"layers.{int(match[1])}.{ours}.weight" if match and ours else None
    found = next((row[0] for row in _MODEL if f"{row[column]}.weight" == name), None)
    return f"{found}.weight" if found else None


def foreign_name(name: str, dialect: Dialect) -> str:
    """Return what `dialect` calls our tensor `name`.

    Raises:
        KeyError: `name` is not a parameter of the model.
    """
    column = _COLUMN[dialect]
    stem = name.removesuffix(".weight")
    if stem.startswith("layers."):
        _, layer, part = stem.split(".", 2)
        theirs = {row[0]: row[column] for row in _LAYER}[part]
        return f"{_LAYER_PREFIX[dialect]}{layer}.{theirs}.weight"
    return {row[0]: row[column] for row in _MODEL}[stem] + ".weight"


def interleaved_to_halves(weight_OD: Tensor, *, head_dim: int) -> Tensor:
    """Reorder the rows of a q or k projection from neighbouring pairs to halves, head by head.

    Args:
        weight_OD: (heads * head_dim, dim), rows of each head in the order x0 y0 x1 y1 ...
        head_dim: rows per head, even.

    Returns:
        The same rows in the order x0 x1 ... y0 y1 ..., a new contiguous tensor.
    """
    rows, dim = weight_OD.shape
    pairs = weight_OD.reshape(rows // head_dim, head_dim // 2, 2, dim)
    return pairs.transpose(1, 2).reshape(rows, dim)


def halves_to_interleaved(weight_OD: Tensor, *, head_dim: int) -> Tensor:
    """Reorder the rows of a q or k projection from halves to neighbouring pairs, head by head.

    Args:
        weight_OD: (heads * head_dim, dim), rows of each head in the order x0 x1 ... y0 y1 ...
        head_dim: rows per head, even.

    Returns:
        The same rows in the order x0 y0 x1 y1 ..., a new contiguous tensor.
    """
    rows, dim = weight_OD.shape
    pairs = weight_OD.reshape(rows // head_dim, 2, head_dim // 2, dim)
    return pairs.transpose(1, 2).reshape(rows, dim)


def is_rotated(name: str) -> bool:
    """Whether our tensor `name` is a projection whose rows are rotated (q and k)."""
    return name.endswith((".q_proj.weight", ".k_proj.weight"))
