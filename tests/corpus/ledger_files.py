"""A ledger by hand, for tests of what reads it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from criadero.corpus.ledger import SCHEMA

Row = tuple[str, int, str, str, str, int, int]
"""Stage, its index, id, outcome, reason, characters in and out."""


def write_ledger(out: Path, source: str, rows: list[Row], *, file: str = "00-00000") -> None:
    """Write one file of the ledger of a source."""
    (out / "ledger" / source).mkdir(parents=True, exist_ok=True)
    records = [
        {
            "source": source, "stage": stage, "stage_index": index, "split": 0, "id": identity,
            "outcome": outcome, "reason": reason, "score": 0.25 if reason else None,
            "characters_in": before, "characters_out": after, "detail": f"about {reason}" if reason else "",
        }
        for stage, index, identity, outcome, reason, before, after in rows
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(records, schema=SCHEMA), out / "ledger" / source / f"{file}.parquet")


# Four documents and a bad record; what comes out was added up by hand.
WORKED: list[Row] = [
    ("read", 0, "a", "kept", "", 100, 100),
    ("read", 0, "b", "kept", "", 50, 50),
    ("read", 0, "c", "kept", "", 30, 30),
    ("read", 0, "d", "kept", "", 20, 20),
    ("read", 0, "e", "bad", "not_json", 0, 0),
    ("clean", 1, "a", "edited", "", 100, 80),
    ("clean", 1, "b", "kept", "", 50, 50),
    ("clean", 1, "c", "dropped", "too_short", 30, 0),
    ("clean", 1, "d", "dropped", "quarantined", 20, 0),
]
LATER: list[Row] = [
    ("dedup", 2, "a", "kept", "", 80, 80),
    ("dedup", 2, "b", "dropped", "too_short", 50, 0),
]
