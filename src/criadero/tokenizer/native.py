"""Faults inside native libraries, turned into errors of ours.

Entry point: `native_faults`. Libraries written in Rust raise bare `Exception` for malformed input, and a
panic, which does not even derive from it, for input their authors did not foresee.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from criadero.errors import TokenizerError


@contextmanager
def native_faults(message: str) -> Iterator[None]:
    """Raise whatever a library raises inside the block as a TokenizerError that opens with `message`.

    Interrupts, exits and running out of memory pass through.
    """
    try:
        yield
    except MemoryError:
        raise
    except BaseException as problem:
        if not isinstance(problem, Exception) and type(problem).__name__ != "PanicException":
            raise
        raise TokenizerError(f"{message}: {problem}") from None
