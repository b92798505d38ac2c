"""A recipe over a small input, in this process: for tests and for looking at a few documents.

Entry point: `run_inline`. It is the engine itself in a temporary folder, with all but the workers.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from criadero.corpus.document import Document
from criadero.corpus.engine.config import EngineConfig
from criadero.corpus.engine.documents import read_documents
from criadero.corpus.engine.executor import Inline
from criadero.corpus.engine.run import run_source
from criadero.corpus.engine.stage import Recipe
from criadero.corpus.ledger import LedgerRow, rows


@dataclass(frozen=True)
class InlineResult:
    """What a recipe made of its input.

    Attributes:
        documents: those that every stage kept, in order.
        ledger: one row for each stage and document.
    """

    documents: list[Document]
    ledger: list[LedgerRow]


def run_inline(recipe: Recipe, *, source: str = "source", max_set_aside: int = 0) -> InlineResult:
    """Run all stages over all splits in this process.

    Args:
        recipe: the stages.
        source: the name that ledger rows carry.
        max_set_aside: documents that may be left out because a stage or the reader raised.

    Raises:
        DataError: the recipe cannot be run, or more documents failed.
    """
    with tempfile.TemporaryDirectory(prefix="criadero-") as folder:
        out = Path(folder)
        run_source(
            source, recipe, out, executor=Inline(), settings=EngineConfig(max_quarantined=max_set_aside)
        )
        parts = sorted((out / "documents" / source).glob("part-*.parquet"))
        documents = [document for part in parts for document in read_documents(part)]
        ledgers = [pq.read_table(path) for path in sorted((out / "ledger" / source).iterdir())]
        return InlineResult(documents, rows(pa.concat_tables(ledgers)) if ledgers else [])
