"""Sizes on the command line: `4GB`, `512 MiB` or a plain number of bytes."""

from __future__ import annotations

from criadero.errors import UsageError

_UNITS = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def bytes_of(size: str, *, option: str = "--memory") -> int:
    """Return a size in bytes.

    Raises:
        UsageError: it is no size.
    """
    unit = next((unit for unit in _UNITS if size.endswith(unit)), "")
    try:
        return int(float(size.removesuffix(unit)) * _UNITS.get(unit, 1))
    except (ValueError, OverflowError):
        raise UsageError(
            f"`{option} {size}` is no size", hint=f"such as 4GB; units are {', '.join(_UNITS)}"
        ) from None
