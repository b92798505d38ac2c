"""Small tables of others that tasks need, as they were published. Entry point: `rows`."""

from __future__ import annotations

import csv
from importlib.resources import files


def rows(name: str) -> list[dict[str, str]]:
    """Return the rows of `NAME.csv` by its head line."""
    text = (files(__name__) / f"{name}.csv").read_text()
    return list(csv.DictReader(text.splitlines()))
