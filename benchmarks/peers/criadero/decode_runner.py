"""criadero, measured the way its peers are: its `Engine` on the file's own quantised weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import criadero
from criadero.generate.engine import Engine
from criadero.generate.load import load_generator
from criadero.generate.request import Request
from criadero.generate.sampling import SamplingConfig

Continued = Callable[[list[list[int]]], Iterator[list[int]]]


def open_model(setup: dict[str, Any]) -> tuple[str, Continued]:
    """Return the version and what continues prompts."""
    torch.set_num_threads(setup["threads"])
    generator = load_generator(Path(setup["file"])).generator
    tokens = (setup["context"] + 32) * setup["sequences"]
    engine = Engine(generator.model, generator.tokenizer, cache_tokens=tokens, prefill_tokens=512)
    return criadero.__version__, lambda prompts: continued(engine, prompts, context=setup["context"])


def continued(engine: Engine, prompts: list[list[int]], *, context: int) -> Iterator[list[int]]:
    """Yield one more token of each prompt; those of a question before are given up."""
    sampling = SamplingConfig(temperature=0, max_tokens=context)
    tickets = [engine.submit(Request(prompt, sampling, end_ids=())) for prompt in prompts]
    found: dict[Any, list[int]] = {ticket: [] for ticket in tickets}
    try:
        while engine.has_work:
            for ticket, token in engine.step():
                found[ticket].append(token.id)
            if all(found.values()):
                yield [found[ticket].pop(0) for ticket in tickets]
    finally:
        for ticket in tickets:
            engine.cancel(ticket)
        engine.step()
