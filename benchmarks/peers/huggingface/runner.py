"""Hugging Face's `LlamaForCausalLM` as its Trainer runs it with `bf16=True`: float32 weights, bfloat16
autocast, SDPA attention, the model's own loss, clip, fused AdamW; the whole model compiled where its
`torch_compile=True` would, or each layer; `gradient_checkpointing=True` where layers are recomputed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM


@contextmanager
def training(shape: dict[str, Any]) -> Iterator[tuple[Callable[..., float], int]]:
    """Yield one training step and the number of parameters."""
    config = LlamaConfig(
        vocab_size=shape["vocab_size"],
        hidden_size=shape["dim"],
        intermediate_size=shape["hidden_dim"],
        num_hidden_layers=shape["num_layers"],
        num_attention_heads=shape["num_heads"],
        max_position_embeddings=shape["seq_len"],
        use_cache=False,
        attn_implementation="sdpa",
    )
    with torch.device(shape["device"]):
        model = LlamaForCausalLM(config).train()
    if shape["recompute"] == "full":
        model.gradient_checkpointing_enable({"use_reentrant": False})
    optimizer = torch.optim.AdamW(model.parameters(), fused=True, **shape["adamw"])
    run = torch.compile(model) if shape["compile"] and not shape["compile_layers"] else model
    for layer in model.model.layers if shape["compile_layers"] else ():
        layer.compile(dynamic=False)

    def step(tokens_BT: torch.Tensor, targets_BT: torch.Tensor) -> float:
        pieces = list(zip(*(t.split(shape["micro_batch"]) for t in (tokens_BT, targets_BT)), strict=True))
        total = 0.0
        for tokens, targets in pieces:
            with torch.autocast(shape["device"], dtype=torch.bfloat16):
                loss = run(input_ids=tokens, labels=targets, shift_labels=targets).loss / len(pieces)
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), shape["clip_norm"])
        optimizer.step()
        optimizer.zero_grad()
        return float(total)

    yield step, sum(parameter.numel() for parameter in model.parameters())
