"""The story of one document: what every stage did with it, from the ledger.

Entry point: `explain`. An id that nothing has is an error that names the nearest ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from criadero.corpus.funnel import LEDGER_FOLDER, ledger_files, query_files
from criadero.corpus.ledger import LedgerRow
from criadero.errors import DataError

# Reasons the engine gives to what it sets aside: it killed or stopped workers, a stage or the reader raised.
FAILED = ("quarantined", "error", "reader_died")
DOCUMENTS_FOLDER = "documents"


@dataclass(frozen=True)
class Story:
    """One document or bad record of one source.

    Attributes:
        id, source: which document.
        rows: what each stage did with it, in order.
        kept_in: the file of `documents/` that holds it, None if it was left out.
        metadata: what is known about it, if it was kept.
    """

    id: str
    source: str
    rows: tuple[LedgerRow, ...]
    kept_in: str | None = None
    metadata: Mapping[str, str] | None = None

    @property
    def ending(self) -> str:
        """How it ended, in a few words."""
        if self.kept_in is not None:
            return f"kept in {self.kept_in}"
        last = self.rows[-1]
        if last.reason in FAILED:
            return f"set aside, because stage `{last.stage}` failed on it: {last.reason}"
        if last.outcome in {"dropped", "bad"}:
            return f"{'not read' if last.outcome == 'bad' else 'dropped'}: {last.reason}"
        return "no longer in the corpus"


def explain(out: Path, document_id: str) -> tuple[Story, ...]:
    """Return the story of `document_id` in every source that has it; hardly ever more than one.

    Raises:
        DataError: `out` has no ledger, or no source has such a document; the hint names the nearest ids.
    """
    paths = ledger_files(out)
    columns = ", ".join(field.name for field in fields(LedgerRow))
    query = f"SELECT {columns} FROM read_parquet(?) WHERE id = ? ORDER BY source, split, stage_index"
    by_source: dict[str, list[LedgerRow]] = {}
    for row in query_files(query, paths, document_id):
        by_source.setdefault(row["source"], []).append(LedgerRow(**row))
    if not by_source:
        raise DataError(
            f"no document {document_id!r} in the ledger of `{out}`", hint=_nearest(paths, document_id)
        )
    return tuple(
        Story(document_id, source, tuple(rows), **_whereabouts(out, source, document_id))
        for source, rows in by_source.items()
    )


def _nearest(paths: list[str], document_id: str) -> str:
    query = """
        SELECT id FROM read_parquet(?) WHERE stage_index = 0
        ORDER BY jaro_winkler_similarity(id, ?) DESC, id LIMIT 3
    """
    near = dict.fromkeys(repr(row["id"]) for row in query_files(query, paths, document_id))
    return f"the nearest ids are {', '.join(near)}" if near else f"`{LEDGER_FOLDER}` holds no document at all"


def _whereabouts(out: Path, source: str, document_id: str) -> dict[str, Any]:
    """Return file and metadata of a document that was kept, nothing of one that was not."""
    paths = sorted(str(path) for path in (out / DOCUMENTS_FOLDER / source).glob("*.parquet"))
    query = "SELECT filename, metadata FROM read_parquet(?, filename = true) WHERE id = ?"
    for row in query_files(query, paths, document_id):
        file = Path(row["filename"]).relative_to(out).as_posix()
        return {"kept_in": file, "metadata": dict(row["metadata"] or {})}
    return {}


def story_values(story: Story) -> dict[str, Any]:
    """Return a story as JSON values."""
    rows = [{name: value for name, value in asdict(row).items() if name != "id"} for row in story.rows]
    return {
        "id": story.id,
        "source": story.source,
        "ending": story.ending,
        "kept_in": story.kept_in,
        "metadata": None if story.metadata is None else dict(story.metadata),
        "stages": rows,
    }
