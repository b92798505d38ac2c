"""What an exchange sends round: records sorted by key, and the decisions that come back.

`RecordWriter` writes the records of one split as sorted runs of bounded size, so that a reduce task finds its
range of keys by the statistics of the row groups. `decisions_of` reads what was decided for one split.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from criadero.corpus.document import Document
from criadero.corpus.engine.stage import CrossDocument, Decision
from criadero.errors import DataError

Records: TypeAlias = Mapping[str, Sequence[Any]]
PLACE = [pa.field("split", pa.uint32()), pa.field("row", pa.uint32())]
_GROUP_RECORDS = 1 << 16
_BATCH_DECISIONS = 1 << 12


def full_schema(step: CrossDocument) -> pa.Schema:
    """Return the columns of the view `records`.

    Raises:
        DataError: the first column is not `key`, uint64.
    """
    if step.schema.names[:1] != ["key"] or step.schema.field(0).type != pa.uint64():
        raise DataError(f"the records of {type(step).__name__} must begin with `key`, uint64")
    return pa.schema([*step.schema, *PLACE])


class RecordWriter:
    """Writes the records of one split to `folder`, sorted by key, in runs of about `run_bytes`."""

    def __init__(self, folder: Path, step: CrossDocument, split: int, *, run_bytes: int) -> None:
        self._folder = folder
        self._split = split
        self._run_bytes = run_bytes
        self._schema = full_schema(step)
        self._names = step.schema.names
        self.runs = 0
        self.records = 0
        self.record_bytes = 0
        self._tables: list[pa.Table] = []
        self._tables_bytes = 0
        self._clear()

    def _clear(self) -> None:
        self._columns: list[list[Sequence[Any]]] = [[] for _ in self._names]
        self._counts: list[int] = []
        self._rows: list[int] = []

    def check(self, records: Records) -> None:
        """Look at the records of one document.

        Raises:
            DataError: columns are missing or of different lengths.
        """
        lengths = {len(records[name]) for name in self._names if name in records}
        if len(lengths) != 1 or len(records) != len(self._names):
            raise DataError(f"records need the columns {', '.join(self._names)}, all of one length")

    def add(self, row: int, records: Records) -> None:
        """Take the records of the document at `row`."""
        if count := len(records["key"]):
            for column, name in zip(self._columns, self._names, strict=True):
                column.append(records[name])
            self._counts.append(count)
            self._rows.append(row)

    def flush(self) -> None:
        """Turn what was taken into a table; write a run when the tables are large enough."""
        if self._rows:
            total = sum(self._counts)
            columns = [
                pa.array(_joined(column), field.type)
                for column, field in zip(self._columns, self._schema, strict=False)
            ]
            columns.append(pa.repeat(pa.scalar(self._split, pa.uint32()), total))
            columns.append(pa.array(np.repeat(np.array(self._rows, np.uint32), self._counts)))
            table = pa.Table.from_arrays(columns, schema=self._schema)
            self._tables.append(table)
            self._tables_bytes += table.nbytes
            self.records += total
            self.record_bytes += table.nbytes
            self._clear()
        if self._tables_bytes >= self._run_bytes:
            self._write_run()

    def _write_run(self) -> None:
        table = pa.concat_tables(self._tables).combine_chunks()
        order = np.argsort(table.column("key").to_numpy(), kind="stable")
        pq.write_table(
            table.take(pa.array(order)),
            self._folder / run_name(self.runs),
            row_group_size=_GROUP_RECORDS,
            compression="zstd",
            compression_level=1,
            use_dictionary=False,
        )
        self.runs += 1
        self._tables, self._tables_bytes = [], 0

    def close(self) -> None:
        """Write the last run."""
        self.flush()
        if self._tables:
            self._write_run()


def run_name(number: int) -> str:
    """Return the file name of a run."""
    return f"records-{number:05d}.parquet"


def _joined(pieces: list[Any]) -> Any:
    if isinstance(pieces[0], np.ndarray):
        return np.concatenate(pieces)
    return list(chain.from_iterable(pieces))


def read_parquet(paths: Sequence[Path]) -> str:
    """Return the SQL for all rows of these files."""
    names = ", ".join("'" + str(path).replace("'", "''") + "'" for path in paths)
    return f"read_parquet([{names}])"


class Decisions:
    """The decisions of one split, walked along with its documents."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, paths: Sequence[Path], split: int, step: CrossDocument
    ) -> None:
        self._step = step
        self._rows = _rows(connection, paths, split)
        self._next = next(self._rows, None)
        self.row = -1

    def apply(self, document: Document) -> Any:
        """Decide about the document at `row`; rows are set in ascending order."""
        mine: list[Decision] = []
        while self._next is not None and self._next[0] <= self.row:
            if self._next[0] == self.row:
                mine.append(self._next[1])
            self._next = next(self._rows, None)
        return self._step.apply(document, mine)


def _rows(
    connection: duckdb.DuckDBPyConnection, paths: Sequence[Path], split: int
) -> Iterator[tuple[int, Decision]]:
    """Yield (row, decision) in order of row."""
    query = (
        f"SELECT row, * EXCLUDE (split, row) FROM {read_parquet(paths)} WHERE split = {split} ORDER BY ALL"
    )
    for batch in connection.sql(query).to_arrow_reader(_BATCH_DECISIONS):
        names = batch.schema.names[1:]
        # Much faster by column than `to_pylist` of the batch.
        row, *columns = (column.to_pylist() for column in batch.columns)
        values = zip(*columns, strict=True) if columns else repeat(())
        for place, one in zip(row, values, strict=False):
            yield place, dict(zip(names, one, strict=True))
