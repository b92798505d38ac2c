"""One cross-document step over documents in memory, without the engine around it.

Entry point: `exchange`. The step's own `emit`, SQL and `apply` run; splits and rows are places in the list.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from criadero.corpus.document import Document, Drop
from criadero.corpus.engine.stage import CrossDocument


def exchange(step: CrossDocument, documents: Sequence[Document], *, splits: int = 1) -> list[Document | Drop]:
    """Return what becomes of each document when they are dealt out to so many splits."""
    tables = []
    for place, document in enumerate(documents):
        records = dict(step.emit(document))
        count = len(records[step.schema.names[0]])
        records |= {"split": [place % splits] * count, "row": [place // splits] * count}
        tables.append(pa.table(records, schema=_with_place(step.schema)))
    with duckdb.connect() as connection:
        connection.register("records", pa.concat_tables(tables))
        rows = connection.sql(f"SELECT * FROM ({step.reduce}) ORDER BY ALL").to_arrow_table().to_pylist()
    found: dict[int, list[dict[str, object]]] = {}
    for row in rows:
        found.setdefault(row["row"] * splits + row["split"], []).append(row)
    return [step.apply(document, found.get(place, [])) for place, document in enumerate(documents)]


def _with_place(schema: pa.Schema) -> pa.Schema:
    return pa.schema([*schema, ("split", pa.uint32()), ("row", pa.uint32())])
