"""The libraries of the `corpus` extra: a clear error where one is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from criadero.errors import DataError


@contextmanager
def require_extra(purpose: str) -> Iterator[None]:
    """Turn a failed import inside the block into an error that says what to install.

    Raises:
        DataError: a module is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as problem:
        raise DataError(
            f"{purpose} needs the library `{problem.name}`, which is not installed",
            hint="pip install 'criadero[corpus]'",
        ) from None
