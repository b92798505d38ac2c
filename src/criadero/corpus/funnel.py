"""The funnel: how many documents and characters each stage of each source let through, from the ledger.

Entry point: `read_funnel`, one `SourceFunnel` for each source with its stages in order; `funnel_values` is
its JSON. What came in is always what came out plus what was dropped; a ledger where it is not is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from criadero.corpus.extra import require_extra
from criadero.errors import DataError

LEDGER_FOLDER = "ledger"


@dataclass(frozen=True)
class StageFunnel:
    """What one stage did.

    Attributes:
        name: of the stage.
        documents_in, documents_out: that reached it, that it let through; records that could not be read
            count as reaching the reader.
        characters_in, characters_out: of their texts before and after.
        edited: documents whose text it changed.
        dropped: documents it dropped and records it could not read, by reason.
    """

    name: str
    documents_in: int
    documents_out: int
    characters_in: int
    characters_out: int
    edited: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceFunnel:
    """All stages of one source, in order."""

    source: str
    stages: tuple[StageFunnel, ...]

    @property
    def documents_in(self) -> int:
        """Documents and bad records the reader met."""
        return self.stages[0].documents_in if self.stages else 0

    @property
    def documents_out(self) -> int:
        """Documents that every stage let through."""
        return self.stages[-1].documents_out if self.stages else 0

    @property
    def characters_in(self) -> int:
        """Characters that were read."""
        return self.stages[0].characters_in if self.stages else 0

    @property
    def characters_out(self) -> int:
        """Characters that are left."""
        return self.stages[-1].characters_out if self.stages else 0

    @property
    def dropped(self) -> dict[str, int]:
        """Documents dropped and records not read over all stages, by reason, most frequent first."""
        total: Counter[str] = Counter()
        for stage in self.stages:
            total.update(stage.dropped)
        return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


def ledger_files(out: Path, source: str | None = None) -> list[str]:
    """Return the ledger's files, of one source or of all, sorted.

    Raises:
        DataError: `out` has no ledger.
    """
    names = _sources(out) if source is None else [source]
    return sorted(str(path) for name in names for path in (out / LEDGER_FOLDER / name).glob("*.parquet"))


def _sources(out: Path) -> list[str]:
    """Return the sources that have a ledger, without what a killed build left half-written."""
    folder = out / LEDGER_FOLDER
    if not folder.is_dir():
        raise DataError(f"`{out}` has no ledger", hint="name a folder that `criadero corpus build` made")
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and ".tmp-" not in path.name)


def read_funnel(out: Path) -> tuple[SourceFunnel, ...]:
    """Return the funnel of every source whose ledger is in `out`, sorted by name.

    Raises:
        DataError: `out` has no ledger, or it does not add up.
    """
    return tuple(source_funnel(out, name) for name in _sources(out))


def source_funnel(out: Path, source: str) -> SourceFunnel:
    """Return the funnel of one source.

    Raises:
        DataError: as `read_funnel`.
    """
    counts = _count(ledger_files(out, source))
    stages = [_stage(rows) for rows in _by_stage(counts)]
    for before, after in pairwise(stages):
        if before.documents_out != after.documents_in:
            raise DataError(
                f"the ledger of `{source}` does not add up: stage `{before.name}` let "
                f"{before.documents_out:,} documents through, `{after.name}` met {after.documents_in:,}",
                hint="its files are not of one run: remove them and build again",
            )
    return SourceFunnel(source, tuple(stages))


def query_files(query: str, paths: Sequence[str], *parameters: Any) -> list[dict[str, Any]]:
    """Return what `query` selects; its first `?` stands for the Parquet files, of which there may be none.

    Raises:
        DataError: a file is damaged, or a parameter is no text.
    """
    if not paths:
        return []
    with require_extra("reading the ledger"):
        import duckdb
    with duckdb.connect() as database:
        try:
            found = database.execute(query, [list(paths), *parameters])
        except duckdb.Error as problem:
            first = str(problem).splitlines()[0]
            raise DataError(
                f"the files of `{Path(paths[0]).parent}` cannot be asked: {first}",
                hint="damaged files are made again when they are removed and the corpus is built again",
            ) from problem
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def _count(paths: Sequence[str]) -> list[dict[str, Any]]:
    """Return rows of the ledger counted by stage, outcome and reason."""
    query = """
        SELECT stage_index, stage, outcome, reason, count(*) AS documents,
               sum(characters_in)::BIGINT AS characters_in, sum(characters_out)::BIGINT AS characters_out
        FROM read_parquet(?) GROUP BY ALL ORDER BY ALL
    """
    return query_files(query, paths)


def _by_stage(rows: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    stages: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        stages.setdefault(row["stage_index"], []).append(row)
    return [stages[index] for index in sorted(stages)]


def _stage(rows: Sequence[dict[str, Any]]) -> StageFunnel:
    passed = [row for row in rows if row["outcome"] in {"kept", "edited"}]
    lost: Counter[str] = Counter()
    for row in rows:
        if row["outcome"] in {"dropped", "bad"}:
            lost[row["reason"]] += row["documents"]
    return StageFunnel(
        name=rows[0]["stage"],
        documents_in=sum(row["documents"] for row in rows),
        documents_out=sum(row["documents"] for row in passed),
        characters_in=sum(row["characters_in"] for row in rows),
        characters_out=sum(row["characters_out"] for row in passed),
        edited=sum(row["documents"] for row in rows if row["outcome"] == "edited"),
        dropped=dict(sorted(lost.items(), key=lambda item: (-item[1], item[0]))),
    )


def funnel_values(funnels: Iterable[SourceFunnel]) -> dict[str, Any]:
    """Return totals by source as JSON values."""
    return {
        "sources": {
            funnel.source: {
                "documents_in": funnel.documents_in,
                "documents_out": funnel.documents_out,
                "characters_in": funnel.characters_in,
                "characters_out": funnel.characters_out,
                "dropped": funnel.dropped,
            }
            for funnel in funnels
        }
    }
