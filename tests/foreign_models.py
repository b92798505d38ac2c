"""Tiny LLaMA models as others would write them: Hugging Face, Meta in parts, GGUF.

The writers here are naive on purpose and share no code with the package: layouts are made row by row.
`naive_llama.naive_logits` computes what Meta's layout means.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf.constants import GGMLQuantizationType as Quantization
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from naive_llama import interleaved_rows

TOKENS_BT = torch.tensor([[1, 7, 300 % 271, 5, 44], [2, 200, 13, 9, 8]])


def random_llama(seed: int = 0, **overrides: Any) -> LlamaForCausalLM:
    """A model of 3 query heads on 1 key/value head whose every weight, norms too, is random."""
    sizes: dict[str, Any] = {
        "vocab_size": 271, "hidden_size": 96, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 3, "num_key_value_heads": 1, "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "attn_implementation": "eager",
    }  # fmt: skip
    model = LlamaForCausalLM(LlamaConfig(**{**sizes, **overrides}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(mean=float("norm" in name), std=0.2, generator=generator)
    return model.eval()


def logits(model: torch.nn.Module, tokens_BT: Tensor = TOKENS_BT) -> Tensor:
    with torch.no_grad():
        found = model(tokens_BT)
    return found if isinstance(found, Tensor) else found.logits


META_NAMES = {
    "self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv", "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2", "mlp.up_proj": "feed_forward.w3",
    "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
GGUF_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.down_proj": "ffn_down",
    "mlp.up_proj": "ffn_up", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def renamed(
    model: LlamaForCausalLM, layer_prefix: str, table: dict[str, str], ends: dict[str, str]
) -> dict[str, Tensor]:
    """The weights under another format's names, q and k interleaved."""
    config, found = model.config, {}
    for name, weight in model.state_dict().items():
        value = weight.clone()
        if "q_proj" in name:
            value = interleaved_rows(value, head_dim=config.head_dim)
        if "k_proj" in name:
            value = interleaved_rows(value, head_dim=config.head_dim)
        if name.startswith("model.layers."):
            layer, _, part = name.removeprefix("model.layers.").partition(".")
            found[f"{layer_prefix}{layer}.{table[part.removesuffix('.weight')]}.weight"] = value
        elif name in ends:
            found[ends[name]] = value
    return found


def meta_weights(model: LlamaForCausalLM) -> dict[str, Tensor]:
    ends = {"model.embed_tokens.weight": "tok_embeddings.weight", "model.norm.weight": "norm.weight",
            "lm_head.weight": "output.weight"}  # fmt: skip
    return renamed(model, "layers.", META_NAMES, ends)


def write_meta(
    folder: Path, model: LlamaForCausalLM, *, parts: int, embedding_axis: int = 1, **params: Any
) -> None:
    """Write consolidated.NN.pth and params.json as the released weights have them."""
    folder.mkdir()
    config = model.config
    values = {
        "dim": config.hidden_size, "multiple_of": 32, "n_heads": config.num_attention_heads,
        "n_layers": config.num_hidden_layers, "norm_eps": config.rms_norm_eps, "vocab_size": -1,
    }  # fmt: skip
    if config.num_key_value_heads != config.num_attention_heads:
        values["n_kv_heads"] = config.num_key_value_heads
    (folder / "params.json").write_text(json.dumps(values | params))
    for part in range(parts):
        table = {}
        for name, weight in meta_weights(model).items():
            axis = 1 if name.endswith(("wo.weight", "w2.weight")) else 0
            axis = embedding_axis if "tok_embeddings" in name else axis
            table[name] = weight if weight.dim() == 1 else weight.chunk(parts, dim=axis)[part].clone()
        table["rope.freqs"] = torch.ones(16)
        torch.save(table, folder / f"consolidated.{part:02d}.pth")


def write_gguf(
    path: Path,
    model: LlamaForCausalLM,
    quantization: Quantization | Callable[[str], Quantization],
    *,
    vocabulary: str = "llama",
) -> None:
    """Write a GGUF file with llama.cpp's own writer, matrices quantised, norms in float32.

    The kind may be chosen by a tensor's name; K-quants, which the writer cannot make, are of random bytes.
    """
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    (add_vocabulary if vocabulary == "llama" else add_byte_vocabulary)(writer)
    for name, weight in gguf_weights(model).items():
        values = weight.numpy()
        kind = quantization(name) if callable(quantization) else quantization
        if values.ndim == 1 or kind == Quantization.F32:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, _blocks(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _blocks(values: np.ndarray, kind: Quantization) -> np.ndarray:
    if not kind.name.endswith("_K"):
        return gguf.quants.quantize(values, kind)
    columns, size_bytes = gguf.GGML_QUANT_SIZES[kind]
    shape = (len(values), values.shape[1] // columns * size_bytes)
    return np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)


def gguf_weights(model: LlamaForCausalLM) -> dict[str, Tensor]:
    ends = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if not model.config.tie_word_embeddings:
        ends["lm_head.weight"] = "output.weight"
    return renamed(model, "blk.", GGUF_NAMES, ends)


def add_vocabulary(writer: gguf.GGUFWriter) -> None:
    """A LLaMA-style vocabulary of 271: 3 control tokens, 256 bytes, 12 pieces."""
    pieces = ["\u2581", "h", "i", "t", "e", "\u2581h", "hi", "\u2581hi", "th", "the", "\u2581t", "\u2581the"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 259 + [-float(rank) for rank in range(len(pieces))])
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * len(pieces))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


def add_byte_vocabulary(writer: gguf.GGUFWriter) -> None:
    """A GPT-2-style vocabulary of 271: every byte, 13 merges, 2 control tokens, with a chat template."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [256 + rank for rank in range(256 - len(printable))]
    pairs = [("h", "i"), ("t", "h"), ("th", "e"), ("\u0120", "the"), ("\u0120", "hi"), ("e", "r"), ("i", "n"),
             ("a", "n"), ("an", "d"), ("o", "n"), ("r", "e"), ("in", "g"), ("o", "u")]  # fmt: skip
    tokens = [chr(character) for character in printable + others] + [left + right for left, right in pairs]
    tokens += ["<|im_start|>", "<|im_end|>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_merges([f"{left} {right}" for left, right in pairs])
    writer.add_token_types([1] * 269 + [3, 3])
    writer.add_bos_token_id(269)
    writer.add_eos_token_id(270)
    writer.add_chat_template("{% for m in messages %}{{ evil(m) }}{% endfor %}")


def dequantised(model: LlamaForCausalLM, quantization: Quantization) -> LlamaForCausalLM:
    """The same model with each matrix quantised and read back, in the row order of the file."""
    config, copy = model.config, random_llama(**model.config.to_dict())
    state = {}
    for name, weight in model.state_dict().items():
        value = weight.clone()
        if value.dim() == 2:
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            rotated = "q_proj" in name or "k_proj" in name
            rows = (interleaved_rows(value, head_dim=config.head_dim) if rotated else value).numpy()
            back = gguf.quants.dequantize(gguf.quants.quantize(rows, quantization), quantization)
            value = torch.from_numpy(np.array(back, dtype=np.float32))
            value = halves(value, heads) if rotated else value
        state[name] = value
    copy.load_state_dict(state)
    return copy.eval()


def halves(weight_OD: Tensor, num_heads: int) -> Tensor:
    """The inverse of `interleaved_rows`, one row at a time."""
    head_dim = weight_OD.shape[0] // num_heads
    order = [
        h * head_dim + r for h in range(num_heads) for r in [*range(0, head_dim, 2), *range(1, head_dim, 2)]
    ]
    return torch.stack([weight_OD[row] for row in order])
