"""The loop over the documents of one split: every stage of a segment on each, with a ledger row each.

Entry point: `Flow.run`. What goes wrong inside a stage costs the document it happened in: it is set aside
with the reason `error`. Documents that killed or blocked a worker before are named beforehand and not
tried again.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from time import monotonic

from criadero.corpus.document import BadRecord, Document, Drop
from criadero.corpus.engine.cursor import WRITING, Cursor
from criadero.corpus.engine.output import SplitOutput
from criadero.corpus.engine.records import Decisions
from criadero.corpus.engine.stage import DocumentFunction
from criadero.corpus.ledger import LedgerColumns, spelled
from criadero.errors import DataError

_PUBLISH_SECONDS = 0.5
_BEGINS_CHARACTERS = 100
_FLUSH_LEDGER_ROWS = 1 << 15


@dataclass(frozen=True)
class Guilt:
    """Why a record is not tried again.

    Attributes:
        stage: place in the recipe of the stage it was in, 0 for the reader.
        detail: what happened to the workers.
    """

    stage: int
    detail: str


@dataclass(frozen=True)
class SetAside:
    """A document, or the rest of a split, that was left out because its processing failed.

    Attributes:
        index: number of the record in the split.
        stage: name of the stage.
        id: of the document; empty for what the reader could not read.
        begins: the first characters of the text.
        reason: `quarantined`, `error` or `reader_died`.
        detail: the exception, or what happened to the workers.
    """

    index: int
    stage: str
    id: str
    begins: str
    reason: str
    detail: str


class ReaderFailed(Exception):
    """A reader raised; carried to the driver, which counts it like the death of a worker."""

    def __init__(self, index: int, detail: str) -> None:
        super().__init__(index, detail)
        self.index = index
        self.detail = detail


@dataclass(frozen=True)
class Step:
    """A stage in the loop: its place in the recipe, its function, the metadata key of a score."""

    stage: int
    function: DocumentFunction
    score: str | None = None


@dataclass
class Flow:
    """One split on its way through a segment.

    Attributes:
        stages: names of all stages of the recipe.
        steps: what is done with each document.
        last: place in the recipe of what a document meets last.
        output: takes what is left.
        ledger: takes the rows.
        cursor: says where we are.
        guilty: records not to try again, by index.
        decisions: those of the exchange before, told the row of each document.
        reading: whether this is the raw input, whose records get a row of their own.
        max_set_aside: more than so many exceptions end the task.
    """

    stages: tuple[str, ...]
    steps: list[Step]
    last: int
    output: SplitOutput
    ledger: LedgerColumns
    cursor: Cursor
    guilty: Mapping[int, Guilt]
    decisions: Decisions | None
    reading: bool
    max_set_aside: int
    set_aside: list[SetAside] = field(default_factory=list)
    records: int = 0
    documents_in: int = 0
    characters_in: int = 0
    _due: float = 0.0

    def run(self, records: Iterable[Document | BadRecord]) -> None:
        """Read to the end, or to the record that the reader is known to fail at.

        Raises:
            ReaderFailed: the reader raised.
            DataError: more documents failed than are allowed.
        """
        place, ledger = self.cursor.place, self.ledger
        iterator = iter(records)
        index = 0
        while True:
            place[0] = index << 16
            guilt = self.guilty.get(index)
            if guilt is not None and guilt.stage == 0:
                self._stop_reading(index, guilt)
                break
            try:
                record = next(iterator, None)
            except MemoryError:
                raise
            except Exception as problem:
                raise ReaderFailed(index, _describe(problem)) from problem
            if record is None:
                break
            if isinstance(record, BadRecord):
                self.documents_in += 1
                ledger.bad(0, record)
            else:
                self._one(index, record, guilt)
            index += 1
            if len(ledger) >= _FLUSH_LEDGER_ROWS:
                self._flush()
            if monotonic() >= self._due:
                self._due = monotonic() + _PUBLISH_SECONDS
                self.cursor.publish(ledger.left_out)
        self.records = index
        self._flush()

    def _one(self, index: int, document: Document, guilt: Guilt | None) -> None:
        place, ledger = self.cursor.place, self.ledger
        here = index << 16
        stage, kept = 0, False
        try:
            if self.reading:
                self.documents_in += 1
                self.characters_in += len(document.text)
                ledger.passed(0, document, document, None)
            if self.decisions is not None:
                self.decisions.row = index
            for step in self.steps:
                stage = step.stage
                if guilt is not None and guilt.stage == stage:
                    return self._leave_out(index, stage, document, "quarantined", guilt.detail)
                place[0] = here | stage
                result = step.function(document)
                if isinstance(result, Drop):
                    ledger.dropped(stage, document, result)
                    return None
                score = None if step.score is None else float(result.metadata[step.score])
                ledger.passed(stage, document, result, score)
                document = result
            kept = stage == self.last
            stage = self.last
            if guilt is not None:
                return self._leave_out(index, stage, document, "quarantined", guilt.detail)
            place[0] = here | stage
            text, records = self.output.prepare(document)
        except MemoryError:
            # What is left of the process is in no state to judge other documents.
            raise
        except Exception as problem:
            if kept:
                ledger.take_back()
            return self._leave_out(index, stage, document, "error", _describe(problem))
        if self.output.add(document, text, records):
            self._flush()
        return None

    def _flush(self) -> None:
        place = self.cursor.place[0]
        self.cursor.at_stage(WRITING)
        self.output.flush()
        self.cursor.place[0] = place
        self.cursor.publish(self.ledger.left_out)

    def _leave_out(self, index: int, stage: int, document: Document, reason: str, detail: str) -> None:
        self.ledger.dropped(stage, document, Drop(reason, detail=detail))
        self.set_aside.append(
            SetAside(
                index,
                self.stages[stage],
                spelled(document.id),
                spelled(document.text[:_BEGINS_CHARACTERS]),
                reason,
                spelled(detail),
            )
        )
        if len(self.set_aside) > self.max_set_aside:
            raise DataError(
                f"more than {self.max_set_aside} documents of one split failed, the last one, "
                f"{document.id!r}, in `{self.stages[stage]}`: {detail}",
                hint="this looks like a fault of the stage, not of the documents",
            )

    def _stop_reading(self, index: int, guilt: Guilt) -> None:
        self.documents_in += 1
        self.ledger.bad(0, BadRecord(f"record {index}", "reader_died", guilt.detail))
        self.set_aside.append(SetAside(index, self.stages[0], "", "", "reader_died", spelled(guilt.detail)))


def _describe(problem: Exception) -> str:
    """Return the exception's name, text and the line that raised it."""
    frames = traceback.extract_tb(problem.__traceback__)
    where = f" ({frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno})" if frames else ""
    return f"{type(problem).__name__}: {problem}{where}"[:1000]
