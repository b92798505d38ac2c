"""What a map task writes: the documents that are left, their ledger, the records for the next exchange."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from criadero.corpus.document import Document
from criadero.corpus.engine.documents import FINAL, INTERMEDIATE, DocumentWriter, encoded
from criadero.corpus.engine.made import made
from criadero.corpus.engine.records import Records, RecordWriter
from criadero.corpus.engine.segment import Segment
from criadero.corpus.engine.stage import CrossDocument
from criadero.corpus.ledger import LedgerColumns, LedgerWriter

DOCUMENTS, LEDGER = "documents.parquet", "ledger.parquet"


class SplitOutput:
    """The files of one map task, open between `with` and its end."""

    def __init__(
        self, folder: Path, segment: Segment, split: int, ledger: LedgerColumns, *, run_bytes: int
    ) -> None:
        level = FINAL if segment.end is None else INTERMEDIATE
        self._documents = DocumentWriter(folder / DOCUMENTS, compression_level=level)
        self._ledger_file = LedgerWriter(folder / LEDGER)
        self._ledger = ledger
        self._step: CrossDocument | None = None
        self._records: RecordWriter | None = None
        self._characters = 0
        if segment.end is not None:
            self._step = made(segment, segment.end)
            self._records = RecordWriter(folder, self._step, split, run_bytes=run_bytes)

    def prepare(self, document: Document) -> tuple[bytes, Records | None]:
        """Return the text in UTF-8 and the records; what a document can make fail is done here."""
        text = encoded(document)
        if self._step is None or self._records is None:
            return text, None
        records = self._step.emit(document)
        self._records.check(records)
        return text, records

    def add(self, document: Document, text: bytes, records: Records | None) -> bool:
        """Take a document as it was prepared; say whether it is time to flush."""
        if self._records is not None and records is not None:
            self._records.add(self._documents.count, records)
        self._characters += len(document.text)
        return self._documents.add(document, text)

    def flush(self) -> None:
        """Write what was collected."""
        self._documents.flush()
        self._ledger_file.write(self._ledger)
        if self._records is not None:
            self._records.flush()

    def counts(self) -> dict[str, Any]:
        """Return what was written, for the journal."""
        return {
            "documents": self._documents.count,
            "characters": self._characters,
            "runs": 0 if self._records is None else self._records.runs,
            "record_bytes": 0 if self._records is None else self._records.record_bytes,
        }

    def __enter__(self) -> SplitOutput:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._documents.abandon()
            self._ledger_file.abandon()
            return
        self._documents.close()
        self._ledger_file.close()
        if self._records is not None:
            self._records.close()
