"""The three tasks of the engine: map a split, reduce a range of keys, combine the decisions.

Each takes its work, the folder to write to, a cursor and the memory it may use, and returns counts as JSON;
`perform` runs one so that its folder appears whole or not at all. They are the same functions in this
process and on a cluster.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from criadero import files
from criadero.corpus.document import BadRecord, Document
from criadero.corpus.engine.cursor import WRITING, Cursor
from criadero.corpus.engine.documents import DocumentFiles, read_documents
from criadero.corpus.engine.flow import Flow, Guilt, Step
from criadero.corpus.engine.made import made
from criadero.corpus.engine.output import SplitOutput
from criadero.corpus.engine.records import Decisions, full_schema, read_parquet
from criadero.corpus.engine.segment import Segment
from criadero.corpus.engine.stage import CrossDocument, Exchange, Reader, Split
from criadero.corpus.ledger import LedgerColumns, spelled
from criadero.errors import DataError, ResourceError

DECISIONS = "decisions.parquet"
_FULL_DISK = ("No space left", "Disk quota exceeded", "File too large", "max_temp_directory_size")
_DECISIONS_GROUP = 1 << 15
_LEAST_DATABASE_BYTES = 32 << 20


@dataclass(frozen=True)
class Task:
    """Something to do once, named by the hash of all that its result depends on.

    Attributes:
        key: that hash.
        label: what progress and errors call it.
        function: `map_split`, `reduce_range` or `combine_decisions`.
        work: its first argument.
        folder: what it writes, whole; each try has one of its own.
        cursor: where it says how far it is.
        memory_bytes: what it may use.
    """

    key: str
    label: str
    function: Callable[..., dict[str, Any]]
    work: Any
    folder: Path
    cursor: Path
    memory_bytes: int


@dataclass(frozen=True)
class MapWork:
    """One split through one segment.

    Attributes:
        segment: the stages.
        number: of the split.
        split: what the reader reads, in the first segment.
        documents: what the segment before wrote, in the others.
        decisions: files with the decisions of the exchange before.
        max_set_aside: more exceptions of stages end the task.
        guilty: records not to try again, by index.
    """

    segment: Segment
    number: int
    split: Split | None
    documents: Path | None
    decisions: tuple[Path, ...]
    max_set_aside: int
    guilty: Mapping[int, Guilt] = field(default_factory=dict)


@dataclass(frozen=True)
class ReduceWork:
    """A range of keys of one exchange; `stop` None means all from `start`."""

    segment: Segment
    runs: tuple[Path, ...]
    start: int
    stop: int | None


@dataclass(frozen=True)
class CombineWork:
    """The decisions of all ranges, and the documents they are about."""

    segment: Segment
    decisions: tuple[Path, ...]
    documents: tuple[Path, ...]


def _unguarded(cursor: Cursor, memory_bytes: int) -> AbstractContextManager[None]:  # noqa: ARG001
    return nullcontext()


def perform(
    task: Task,
    *,
    beat: Callable[[], None] | None = None,
    guard: Callable[[Cursor, int], AbstractContextManager[None]] = _unguarded,
) -> dict[str, Any]:
    """Run a task; return its result and the size and sha256 of every file it wrote.

    Args:
        task: what to do.
        beat: called now and then.
        guard: bounds the memory of the process meanwhile.

    Raises:
        ResourceError: the disk is full.
    """
    with (
        _full_disk(task.folder),
        closing(Cursor(task.cursor, beat=beat)) as cursor,
        guard(cursor, task.memory_bytes),
        files.atomic_folder(task.folder) as folder,
    ):
        result = task.function(task.work, folder, cursor=cursor, memory_bytes=task.memory_bytes)
        cursor.at_stage(WRITING)
        written = [
            {"name": path.name, "size_bytes": path.stat().st_size, "sha256": files.sha256_file(path)}
            for path in sorted(folder.iterdir())
        ]
    return {"result": result, "files": written}


@contextmanager
def _full_disk(folder: Path) -> Iterator[None]:
    """Name a full disk as such, wherever it shows; DuckDB says it only in words."""
    try:
        yield
    except (OSError, duckdb.Error) as problem:
        if not any(sign in str(problem) for sign in _FULL_DISK):
            raise
        raise ResourceError(
            f"`{folder}` could not be written: the disk is full",
            hint="free some space or choose a folder on another disk",
        ) from problem


def map_split(work: MapWork, folder: Path, *, cursor: Cursor, memory_bytes: int) -> dict[str, Any]:
    """Run the documents of a split through a segment.

    Raises:
        ReaderFailed: the reader raised an exception.
        DataError: more documents failed than are allowed.
    """
    segment = work.segment
    ledger = LedgerColumns(segment.source, work.number, segment.stages)
    with SplitOutput(folder, segment, work.number, ledger, run_bytes=memory_bytes // 8) as output:
        with _decisions(work, folder, database_bytes=memory_bytes // 4) as decisions:
            flow = Flow(
                stages=segment.stages,
                steps=_steps(work, decisions),
                last=segment.last,
                output=output,
                ledger=ledger,
                cursor=cursor,
                guilty=work.guilty,
                decisions=decisions,
                reading=work.documents is None,
                max_set_aside=work.max_set_aside,
            )
            flow.run(_records(work))
        cursor.at_stage(WRITING)
    return {
        "records": flow.records,
        "documents_in": flow.documents_in,
        "characters_in": flow.characters_in,
        "left_out": {spelled(reason): count for reason, count in sorted(ledger.left_out.items())},
        "set_aside": [asdict(one) for one in flow.set_aside],
        **output.counts(),
    }


def _records(work: MapWork) -> Iterable[Document | BadRecord]:
    if work.documents is not None:
        return read_documents(work.documents)
    assert work.split is not None
    reader: Reader = made(work.segment, work.segment.begin)
    return reader(work.split)


@contextmanager
def _decisions(work: MapWork, folder: Path, *, database_bytes: int) -> Iterator[Decisions | None]:
    """Open what the exchange before decided about this split, if there is one."""
    if not isinstance(work.segment.begin, Exchange):
        yield None
        return
    step = made(work.segment, work.segment.begin)
    with _database(folder, database_bytes) as connection:
        yield Decisions(connection, work.decisions, work.number, step)


def _steps(work: MapWork, decisions: Decisions | None) -> list[Step]:
    segment = work.segment
    steps = [] if decisions is None else [Step(segment.first, decisions.apply)]
    for place, stage in enumerate(segment.eaches, start=segment.first + 1):
        steps.append(Step(place, made(segment, stage), stage.score))
    return steps


def reduce_range(work: ReduceWork, folder: Path, *, cursor: Cursor, memory_bytes: int) -> dict[str, Any]:
    """Let the SQL of an exchange decide about all records in a range of keys.

    Raises:
        DataError: the SQL cannot be run.
    """
    cursor.at_stage(WRITING)
    exchange = work.segment.end
    assert exchange is not None
    step: CrossDocument = made(work.segment, exchange)
    with _database(folder, memory_bytes // 2) as connection:
        if work.runs:
            condition = f"key >= {work.start}" + ("" if work.stop is None else f" AND key < {work.stop}")
            selected = f"SELECT * FROM {read_parquet(work.runs)} WHERE {condition}"
            connection.execute(f"CREATE TEMP VIEW records AS {selected}")
        else:
            connection.register("records", full_schema(step).empty_table())
        _write_decisions(connection, f"({step.reduce})", folder, where=f"the SQL of `{exchange.name}`")
    return {}


def combine_decisions(
    work: CombineWork, folder: Path, *, cursor: Cursor, memory_bytes: int
) -> dict[str, Any]:
    """Let an exchange see all its decisions at once."""
    cursor.at_stage(WRITING)
    exchange = work.segment.end
    assert exchange is not None
    step: CrossDocument = made(work.segment, exchange)
    where = f"what `{exchange.name}` combined"
    with _database(folder, memory_bytes // 4) as connection:
        query = f"SELECT split, row, * EXCLUDE (split, row) FROM {read_parquet(work.decisions)} ORDER BY ALL"
        decisions = connection.sql(query).to_arrow_table()
        combined = step.combine(decisions, DocumentFiles(work.documents))
        connection.register("combined", combined)
        _write_decisions(connection, "combined", folder, where=where)
    return {}


def combines(step: CrossDocument) -> bool:
    """Whether a step has a `combine` of its own; without one no task ever holds all decisions."""
    return getattr(type(step), "combine", CrossDocument.combine) is not CrossDocument.combine


def _write_decisions(connection: duckdb.DuckDBPyConnection, rows: str, folder: Path, *, where: str) -> None:
    query = f"SELECT split, row, * EXCLUDE (split, row) FROM {rows} ORDER BY ALL"
    target = str(folder / DECISIONS).replace("'", "''")
    try:
        connection.execute(
            f"COPY ({query}) TO '{target}' "
            f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {_DECISIONS_GROUP})"
        )
    except (duckdb.BinderException, duckdb.ParserException, duckdb.CatalogException) as problem:
        raise DataError(f"{where} cannot be used: {problem}") from problem


@contextmanager
def _database(folder: Path, memory_bytes: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database in memory that spills beside what the task writes."""
    spill = folder / "spill"
    settings = {
        "memory_limit": f"{max(memory_bytes, _LEAST_DATABASE_BYTES) >> 20}MiB",
        "temp_directory": str(spill),
        "threads": 1,
        "preserve_insertion_order": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    with duckdb.connect(config=settings) as connection:
        yield connection
    shutil.rmtree(spill, ignore_errors=True)
