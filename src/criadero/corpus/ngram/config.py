"""Settings of n-gram training."""

from __future__ import annotations

from pydantic import Field

from criadero.config import Config


class NgramConfig(Config):
    """How an n-gram model is estimated.

    Attributes:
        order: words of the longest n-gram.
        memory_bytes: what counting and smoothing may hold at once; the vocabulary (about 150 bytes a
            word) and the interpreter come on top. Less memory means more temporary files beside the output.
        discount_fallback: take the discounts 0.5, 1 and 1.5 for an order whose counts of counts give none,
            and say so, instead of failing. Little or artificial text needs it.
        skip_symbols: treat the words `<s>`, `</s>` and `<unk>` in the text as blanks instead of failing.
    """

    order: int = Field(default=5, ge=1, le=16)
    memory_bytes: int = Field(default=2 << 30, ge=1 << 20)
    discount_fallback: bool = True
    skip_symbols: bool = False
