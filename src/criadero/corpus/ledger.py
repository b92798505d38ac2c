"""The ledger: what every stage did with every document, as rows of Parquet.

`LedgerColumns` collects rows in columns while documents flow and gives them out as Arrow tables; `SCHEMA`
names the columns. A document has one row for each stage it reached: `kept`, `edited` or `dropped`; a record
that could not be read has one row, `bad`. So in every source the rows of stage 0 are what came in, and those
minus `dropped` and `bad` are what came out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from criadero.corpus.document import BadRecord, Document, Drop

Outcome: TypeAlias = Literal["kept", "edited", "dropped", "bad"]

SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("stage", pa.string()),
        ("stage_index", pa.int32()),
        ("split", pa.int32()),
        ("id", pa.string()),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("score", pa.float64()),
        ("characters_in", pa.int64()),
        ("characters_out", pa.int64()),
        ("detail", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """What one stage did with one document.

    Attributes:
        source: name of the source.
        stage: name of the stage.
        stage_index: place of the stage in the recipe, 0 for the reader.
        split: number of the split the document came from.
        id: of the document or of the bad record.
        outcome: `kept` unchanged, `edited`, `dropped`, or `bad`: it could not be read.
        reason: why it was dropped or is bad, else empty.
        score: the number it was decided on, if the stage gives one.
        characters_in: length of the text before the stage, characters.
        characters_out: length after it; 0 if dropped.
        detail: what else explains it.
    """

    source: str
    stage: str
    stage_index: int
    split: int
    id: str
    outcome: Outcome
    reason: str
    score: float | None
    characters_in: int
    characters_out: int
    detail: str


class LedgerColumns:
    """Rows of one split as growing columns, because an object for each would cost more than the stages."""

    def __init__(self, source: str, split: int, stages: tuple[str, ...]) -> None:
        """Begin without rows; `stages` are the names of all stages of the recipe, in order.

        `left_out` counts the dropped and bad rows by reason.
        """
        self._source = source
        self._split = split
        self._stages = stages
        self.left_out: Counter[str] = Counter()
        self._clear()

    def _clear(self) -> None:
        self._stage: list[int] = []
        self._id: list[str] = []
        self._outcome: list[str] = []
        self._reason: list[str] = []
        self._score: list[float | None] = []
        self._characters_in: list[int] = []
        self._characters_out: list[int] = []
        self._detail: list[str] = []

    def __len__(self) -> int:
        return len(self._id)

    def passed(self, stage: int, before: Document, after: Document, score: float | None) -> None:
        """Add the row of a document that a stage kept or edited."""
        length_before, length_after = len(before.text), len(after.text)
        same = before is after or (length_before == length_after and before.text == after.text)
        self._stage.append(stage)
        self._id.append(after.id)
        self._outcome.append("kept" if same else "edited")
        self._reason.append("")
        self._score.append(score)
        self._characters_in.append(length_before)
        self._characters_out.append(length_after)
        self._detail.append("")

    def dropped(self, stage: int, document: Document, drop: Drop) -> None:
        """Add the row of a document that a stage dropped."""
        score = None if drop.score is None else float(drop.score)
        self._left_out(stage, document.id, "dropped", drop, score, len(document.text))

    def bad(self, stage: int, record: BadRecord) -> None:
        """Add the row of a record that could not be read."""
        self._left_out(stage, record.id, "bad", record, None, 0)

    def _left_out(
        self,
        stage: int,
        identity: str,
        outcome: Outcome,
        why: Drop | BadRecord,
        score: float | None,
        characters: int,
    ) -> None:
        self.left_out[why.reason] += 1
        self._stage.append(stage)
        self._id.append(identity)
        self._outcome.append(outcome)
        self._reason.append(why.reason)
        self._score.append(score)
        self._characters_in.append(characters)
        self._characters_out.append(0)
        self._detail.append(why.detail)

    def _columns(self) -> tuple[list[Any], ...]:
        return (
            self._stage,
            self._id,
            self._outcome,
            self._reason,
            self._score,
            self._characters_in,
            self._characters_out,
            self._detail,
        )

    def take_back(self) -> None:
        """Forget the last row, of a document that a stage kept and that could not be stored after all."""
        for column in self._columns():
            column.pop()

    def take(self) -> pa.Table:
        """Return the rows so far and forget them."""
        count = len(self)
        columns = [
            pa.repeat(pa.scalar(self._source), count),
            pa.array([self._stages[stage] for stage in self._stage], pa.string()),
            pa.array(self._stage, pa.int32()),
            pa.repeat(pa.scalar(self._split, pa.int32()), count),
            _strings(self._id),
            pa.array(self._outcome, pa.string()),
            _strings(self._reason),
            pa.array(self._score, pa.float64()),
            pa.array(self._characters_in, pa.int64()),
            pa.array(self._characters_out, pa.int64()),
            _strings(self._detail),
        ]
        self._clear()
        return pa.Table.from_arrays(columns, schema=SCHEMA)


def _strings(values: list[str]) -> pa.Array:
    """Return a column; what is no valid Unicode, which only broken input has, is spelled out."""
    try:
        return pa.array(values, pa.string())
    except (UnicodeEncodeError, pa.ArrowException):
        return pa.array([spelled(value) for value in values], pa.string())


def spelled(text: str) -> str:
    """Return text that can be written as UTF-8; halves of surrogate pairs are spelled `\\ud800`."""
    return str(text).encode("utf-8", "backslashreplace").decode()


def rows(table: pa.Table) -> list[LedgerRow]:
    """Return the rows of a small table as objects."""
    return [LedgerRow(**row) for row in table.to_pylist()]


class LedgerWriter:
    """Writes the rows of one split to one Parquet file."""

    def __init__(self, path: Path) -> None:
        self._writer = pq.ParquetWriter(path, SCHEMA, compression="zstd", write_page_checksum=True)

    def write(self, columns: LedgerColumns) -> None:
        """Write what was collected as a row group."""
        if len(columns):
            self._writer.write_table(columns.take())

    def close(self) -> None:
        """Write the end of the file."""
        self._writer.close()

    def abandon(self) -> None:
        """Leave the file unfinished after an error, without another one when it is closed later."""
        self._writer.is_open = False
