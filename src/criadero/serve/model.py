"""What is served: one engine under one name.

Entry point: `ServedModel`, which whoever starts a server makes; worker.py steps its engine, protocol.py and
replies.py read the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

from criadero.generate.engine import Engine
from criadero.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class ServedModel:
    """A model that is ready to answer."""

    engine: Engine
    name: str
    """What the server calls it, whatever clients call it."""
    template: str | None
    """A chat template of `criadero.tokenizer.chat`; None where there is none to use: no chat then."""
    created: int
    """Unix time, in seconds."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The one the model was trained with."""
        return self.engine.tokenizer

    @property
    def context(self) -> int:
        """Most tokens of prompt and answer together: what the model knows and the cache can hold."""
        return min(self.engine.model.config.max_seq_len, self.engine.capacity_tokens)
