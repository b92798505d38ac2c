"""Hugging Face transformers as its users run it on the CPU: dequantised weights, its own cache, eager."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import transformers

Continued = Callable[[list[list[int]]], Iterator[list[int]]]


def open_model(setup: dict[str, Any]) -> tuple[str, Continued]:
    """Return the version and what continues prompts."""
    torch.set_num_threads(setup["threads"])
    dtype = getattr(torch, setup["dtype"])
    model = transformers.AutoModelForCausalLM.from_pretrained(setup["folder"], dtype=dtype).eval()
    return transformers.__version__, lambda prompts: continued(model, prompts)


@torch.inference_mode()
def continued(model: Any, prompts: list[list[int]]) -> Iterator[list[int]]:
    """Yield one more token of each prompt; all are equally long."""
    done = model(torch.tensor(prompts), use_cache=True, logits_to_keep=1)
    while True:
        tokens = done.logits[:, -1].argmax(dim=-1)
        yield tokens.tolist()
        done = model(tokens.unsqueeze(1), past_key_values=done.past_key_values, use_cache=True)
