"""litgpt's `GPT` in a Llama configuration as `litgpt pretrain` runs it: Fabric with `bf16-mixed` (float32
weights, bfloat16 autocast), its chunked cross-entropy, Fabric's clip, fused AdamW; there the model is always
compiled before Fabric sets it up, here in one of the modes: as a whole, each layer, or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from litgpt.config import Config
from litgpt.model import GPT, Block
from litgpt.utils import chunked_cross_entropy
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing


@contextmanager
def training(shape: dict[str, Any]) -> Iterator[tuple[Callable[..., float], int]]:
    """Yield one training step and the number of parameters."""
    config = Config(
        name="llama",
        block_size=shape["seq_len"],
        vocab_size=shape["vocab_size"],
        padded_vocab_size=shape["vocab_size"],
        n_layer=shape["num_layers"],
        n_head=shape["num_heads"],
        n_embd=shape["dim"],
        intermediate_size=shape["hidden_dim"],
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        norm_eps=1e-6,
        mlp_class_name="LLaMAMLP",
    )
    fabric = L.Fabric(accelerator=shape["device"], devices=1, precision="bf16-mixed")
    with fabric.init_module(empty_init=False):
        plain = GPT(config)
    if shape["recompute"] == "full":  # as its FSDP strategy does it
        apply_activation_checkpointing(plain, check_fn=lambda module: isinstance(module, Block))
    for block in plain.transformer.h if shape["compile_layers"] else ():
        block.compile(dynamic=False)
    whole = shape["compile"] and not shape["compile_layers"]
    model = fabric.setup(torch.compile(plain) if whole else plain)
    optimizer = fabric.setup_optimizers(torch.optim.AdamW(model.parameters(), fused=True, **shape["adamw"]))

    def step(tokens_BT: torch.Tensor, targets_BT: torch.Tensor) -> float:
        pieces = list(zip(*(t.split(shape["micro_batch"]) for t in (tokens_BT, targets_BT)), strict=True))
        total = 0.0
        for tokens, targets in pieces:
            loss = chunked_cross_entropy(model(tokens), targets) / len(pieces)
            fabric.backward(loss)
            total += loss.detach()
        fabric.clip_gradients(model, optimizer, max_norm=shape["clip_norm"])
        optimizer.step()
        optimizer.zero_grad()
        return float(total)

    yield step, sum(parameter.numel() for parameter in model.parameters())
