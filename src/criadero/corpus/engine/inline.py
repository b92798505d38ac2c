"""A recipe over a small input, in this process and in memory: for tests and for looking at a few documents.

Entry point: `run_inline`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from criadero.corpus.document import BadRecord, Document, Drop
from criadero.corpus.engine.stage import CrossDocument, Decision, Each, Exchange, Read, Recipe
from criadero.corpus.ledger import LedgerColumns, LedgerRow, rows


@dataclass(frozen=True)
class InlineResult:
    """What a recipe made of its input.

    Attributes:
        documents: those that every stage kept, in order.
        ledger: one row for each stage and document.
    """

    documents: list[Document]
    ledger: list[LedgerRow]


def run_inline(recipe: Recipe) -> InlineResult:
    """Run all stages over all splits in this process; an exception of a stage is raised."""
    read = recipe[0]
    assert isinstance(read, Read)
    names = tuple(stage.name for stage in recipe)
    reader = read.make(**read.settings)
    ledgers = []
    splits: list[list[Document]] = []
    for number, split in enumerate(read.splits):
        ledger = LedgerColumns("", number, names)
        documents = []
        for record in reader(split):
            if isinstance(record, BadRecord):
                ledger.bad(0, record)
            else:
                ledger.passed(0, record, record, None)
                documents.append(record)
        splits.append(documents)
        ledgers.append(ledger)
    for index, stage in enumerate(recipe[1:], start=1):
        if isinstance(stage, Each):
            function = stage.make(**stage.settings)
            for number, documents in enumerate(splits):
                splits[number] = list(_each(documents, function, stage, index, ledgers[number]))
        else:
            assert isinstance(stage, Exchange)
            step = stage.make(**stage.settings)
            decided = _decide(step, splits)
            for number, documents in enumerate(splits):
                splits[number] = list(_apply(documents, step, decided, number, index, ledgers[number]))
    source = next((d.source for documents in splits for d in documents), "")
    table = pa.concat_tables([ledger.take() for ledger in ledgers])
    table = table.set_column(0, "source", pa.repeat(pa.scalar(source), len(table)))
    return InlineResult([d for documents in splits for d in documents], rows(table))


def _each(documents, function, stage, index, ledger):
    for document in documents:
        result = function(document)
        if isinstance(result, Drop):
            ledger.dropped(index, document, result)
            continue
        score = result.metadata.get(stage.score) if stage.score else None
        ledger.passed(index, document, result, None if score is None else float(score))
        yield result


def _decide(step: CrossDocument, splits: list[list[Document]]) -> dict[tuple[int, int], list[Decision]]:
    schema = pa.schema([*step.schema, ("split", pa.uint32()), ("row", pa.uint32())])
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    for number, documents in enumerate(splits):
        for row, document in enumerate(documents):
            records = step.emit(document)
            count = len(records[step.schema.names[0]])
            for name in step.schema.names:
                columns[name].extend(records[name])
            columns["split"].extend([number] * count)
            columns["row"].extend([row] * count)
    connection = duckdb.connect()
    connection.register("records", pa.table(columns, schema=schema))
    query = f"SELECT split, row, * EXCLUDE (split, row) FROM ({step.reduce}) ORDER BY ALL"
    table = connection.sql(query).to_arrow_table()
    table = step.combine(table, _InMemory(splits))
    decided: dict[tuple[int, int], list[Decision]] = {}
    for values in table.to_pylist():
        decided.setdefault((values.pop("split"), values.pop("row")), []).append(values)
    return decided


def _apply(
    documents: Sequence[Document],
    step: CrossDocument,
    decided: dict[tuple[int, int], list[Decision]],
    number: int,
    index: int,
    ledger: LedgerColumns,
) -> Iterator[Document]:
    for row, document in enumerate(documents):
        result = step.apply(document, decided.get((number, row), ()))
        if isinstance(result, Drop):
            ledger.dropped(index, document, result)
        else:
            ledger.passed(index, document, result, None)
            yield result


@dataclass(frozen=True)
class _InMemory:
    splits: list[list[Document]]

    def read(self, places: Iterable[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], Document]]:
        for split, row in sorted(places):
            yield (split, row), self.splits[split][row]
