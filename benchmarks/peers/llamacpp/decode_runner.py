"""llama.cpp through llama-cpp-python's plain C interface: one context, all sequences in one batch."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import llama_cpp
import numpy as np

Continued = Callable[[list[list[int]]], Iterator[list[int]]]


@llama_cpp.llama_log_callback
def _say_nothing(*_: Any) -> None:
    """Its log is long."""


def open_model(setup: dict[str, Any]) -> tuple[str, Continued]:
    """Return the version and what continues prompts."""
    llama_cpp.llama_log_set(_say_nothing, ctypes.c_void_p())
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(
        setup["file"].encode(), llama_cpp.llama_model_default_params()
    )
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx = (setup["context"] + 32) * setup["sequences"]
    settings.n_batch = settings.n_ubatch = 512
    settings.n_seq_max = setup["sequences"]
    settings.kv_unified = True
    settings.n_threads = settings.n_threads_batch = setup["threads"]
    context = llama_cpp.llama_init_from_model(model, settings)
    batch = llama_cpp.llama_batch_init(512, 0, 1)
    width = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    return llama_cpp.__version__, lambda prompts: continued(context, batch, prompts, width=width)


def continued(context: Any, batch: Any, prompts: list[list[int]], *, width: int) -> Iterator[list[int]]:
    """Yield one more token of each prompt; all are equally long."""
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
    chosen = [
        run(context, batch, [(token, t, number) for t, token in enumerate(prompt)], width=width)[-1]
        for number, prompt in enumerate(prompts)
    ]
    position = len(prompts[0])
    while True:
        yield chosen
        places = [(token, position, number) for number, token in enumerate(chosen)]
        chosen = run(context, batch, places, width=width)
        position += 1


def run(context: Any, batch: Any, places: list[tuple[int, int, int]], *, width: int) -> list[int]:
    """Run tokens (id, position, sequence); return the likeliest next token of each last one of a sequence."""
    batch.n_tokens = len(places)
    wanted = {sequence: i for i, (_, _, sequence) in enumerate(places)}.values()
    for i, (token, position, sequence) in enumerate(places):
        batch.token[i], batch.pos[i] = token, position
        batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        batch.logits[i] = i in wanted
    if llama_cpp.llama_decode(context, batch):
        raise RuntimeError("llama_decode failed")
    rows = (llama_cpp.llama_get_logits_ith(context, i) for i in wanted)
    return [int(np.ctypeslib.as_array(row, shape=(width,)).argmax()) for row in rows]
