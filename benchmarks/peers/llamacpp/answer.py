"""llama.cpp asked about a GGUF file: greedy tokens and the ids of texts, as one JSON object each way.

    echo '{"file": "m.gguf", "texts": [...], "prompt": [1, 2], "count": 64}' | .venv/bin/python answer.py

Runs in this folder's own environment; tests/formats/test_export_llamacpp.py starts it. Keys and values are
kept in float32 and attention is the plain one, so that only the weights' precision differs from the file's.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import llama_cpp
import numpy as np


def main() -> None:
    question = json.load(sys.stdin)
    model = llama_cpp.Llama(
        question["file"],
        n_ctx=512,
        n_threads=1,
        n_threads_batch=1,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
        flash_attn=False,
        verbose=False,
    )
    texts = [model.tokenize(text.encode(), add_bos=False, special=False) for text in question["texts"]]
    tokens, margins = greedy(model, question["prompt"], question["count"])
    opened = model.tokenize(b"a", add_bos=True, special=False)[:1] == [model.token_bos()]
    names = {"bos": model.token_bos(), "eos": model.token_eos(), "opens_with_bos": opened}
    json.dump({"texts": texts, "tokens": tokens, "margins": margins, **names}, sys.stdout)


def greedy(model: Any, prompt: list[int], count: int) -> tuple[list[int], list[float]]:
    """Return the likeliest continuation, and by how much each token's logit led the next one's."""
    model.reset()
    tokens: list[int] = []
    margins: list[float] = []
    new = prompt
    for _ in range(count):
        model.eval(new)
        logits = np.ctypeslib.as_array(
            llama_cpp.llama_get_logits_ith(model.ctx, -1), shape=(model.n_vocab(),)
        )
        second, first = np.partition(logits, -2)[-2:]
        tokens.append(int(logits.argmax()))
        margins.append(float(first - second))
        new = tokens[-1:]
    return tokens, margins


if __name__ == "__main__":
    main()
