"""Runs the recipe of one source: every split through every segment, exchanges between them, and the result.

Entry point: `run_source`. All state is in files below the output folder, so that a run that ended at any
moment, for any reason, goes on where it stopped:

    journal.jsonl            what is done
    work/SOURCE/             what done tasks wrote, until the source is finished
    documents/SOURCE/        the result, whole
    ledger/SOURCE/           what every stage did with every document
    quarantine.jsonl         documents that were set aside, in all sources
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from criadero import files
from criadero.corpus.engine import keys
from criadero.corpus.engine.config import EngineConfig
from criadero.corpus.engine.executor import Executor
from criadero.corpus.engine.journal import Journal
from criadero.corpus.engine.made import made
from criadero.corpus.engine.output import DOCUMENTS, LEDGER
from criadero.corpus.engine.progress import OnProgress
from criadero.corpus.engine.publish import (
    document_entries,
    is_published,
    ledger_entries,
    publish,
    take_away,
)
from criadero.corpus.engine.records import run_name
from criadero.corpus.engine.schedule import Schedule
from criadero.corpus.engine.segment import Segment, cut
from criadero.corpus.engine.stage import Read, Recipe
from criadero.corpus.engine.tasks import (
    DECISIONS,
    CombineWork,
    MapWork,
    ReduceWork,
    Task,
    combine_decisions,
    combines,
    map_split,
    reduce_range,
)
from criadero.corpus.ledger import spelled
from criadero.errors import ResourceError
from criadero.runs import RunLock

QUARANTINE = "quarantine.jsonl"
_FORMAT_VERSION = 1
_KEYS = 1 << 64
# What a worker has in memory before it does anything: Python, Arrow, DuckDB, Ray.
_WORKER_ITSELF_BYTES = 128 << 20
_LEAST_WORKER_BYTES = 64 << 20


@dataclass(frozen=True)
class SourceResult:
    """What a recipe made of its input.

    Attributes:
        source: name of the source.
        folder: of the finished documents and their manifest.
        documents_in: documents and bad records that were read.
        documents: documents that are left.
        characters_in: their text as it was read, characters.
        characters: text that is left, characters.
        left_out: documents and bad records left out, by reason.
        set_aside: what was left out because its processing failed, as in quarantine.jsonl.
        key: hash of everything the result depends on.
    """

    source: str
    folder: Path
    documents_in: int
    documents: int
    characters_in: int
    characters: int
    left_out: Counter[str]
    set_aside: list[dict[str, Any]]
    key: str


def run_source(
    source: str,
    recipe: Recipe,
    out: Path,
    *,
    executor: Executor,
    settings: EngineConfig | None = None,
    progress: OnProgress | None = None,
    stop: Callable[[], bool] | None = None,
) -> SourceResult:
    """Run a recipe and write its documents and ledger below `out`.

    What is done already, by whatever earlier run, is not done again. The result does not depend on the
    executor, the number of its workers or the memory.

    Args:
        source: name of the source, used for folders.
        recipe: its stages.
        out: the corpus folder; on a cluster one that all nodes share.
        executor: where tasks run.
        settings: limits.
        progress: called about every second.
        stop: asked often; True ends the run early.

    Raises:
        StoppedEarly: `stop` said so; the same call goes on.
        DataError: the recipe or an input cannot be used, or too many documents failed.
        RunError: another process writes to `out`.
        ResourceError: the disk is full, or the memory too small.
    """
    settings = settings or EngineConfig()
    segments = cut(source, recipe)
    files.require_writable_folder(out)
    with RunLock(out), closing(Journal(out)) as journal:
        schedule = Schedule(source, executor, journal, settings, progress, stop)
        return _SourceRun(source, segments, out, schedule).run()


class _SourceRun:
    """One call of `run_source`."""

    def __init__(self, source: str, segments: Sequence[Segment], out: Path, schedule: Schedule) -> None:
        self.source = source
        self.segments = segments
        self.out = out
        self.work = out / "work" / source
        self.documents = out / "documents" / source
        self.ledger = out / "ledger" / source
        self.schedule = schedule
        share_bytes = schedule.settings.memory_bytes // schedule.executor.workers
        self.memory_bytes = share_bytes - _WORKER_ITSELF_BYTES
        begin = segments[0].begin
        assert isinstance(begin, Read)
        self.splits = begin.splits
        if self.memory_bytes < _LEAST_WORKER_BYTES:
            raise ResourceError(
                f"{files.format_bytes(schedule.settings.memory_bytes)} for {schedule.executor.workers} "
                f"workers are {files.format_bytes(share_bytes)} for each, expected at least "
                f"{files.format_bytes(_LEAST_WORKER_BYTES + _WORKER_ITSELF_BYTES)}",
                hint="allow more memory or fewer workers",
            )

    def run(self) -> SourceResult:
        map_keys, exchange_keys, hashes = self._keys()
        key = files.sha256_bytes("\n".join([self.source, *map_keys[-1]]).encode())
        manifest = is_published(self.documents, self.ledger, key)
        if manifest is None:
            manifest = self._build(key, map_keys, exchange_keys, hashes)
        shutil.rmtree(self.work, ignore_errors=True)
        self._write_quarantine(manifest["set_aside"])
        return SourceResult(
            source=self.source,
            folder=self.documents,
            documents_in=manifest["documents_in"],
            documents=manifest["documents"],
            characters_in=manifest["characters_in"],
            characters=manifest["characters"],
            left_out=Counter(manifest["left_out"]),
            set_aside=manifest["set_aside"],
            key=key,
        )

    def _keys(self) -> tuple[list[list[str]], list[str], dict[str, str]]:
        """Return the keys of all map tasks by segment and split, of the exchanges, and the input's hashes."""
        stages = [stage for segment in self.segments for stage in segment.parts]
        paths = [str(path) for stage in stages if not isinstance(stage, Read) for path in stage.files]
        hashes = self.schedule.journal.input_hashes(
            [path for split in self.splits for path in split.reads] + paths, tick=self.schedule.tick
        )
        map_keys: list[list[str]] = []
        exchange_keys: list[str] = []
        for segment in self.segments:
            before = (
                [[exchange_keys[-1], key] for key in map_keys[-1]] if map_keys else [[]] * len(self.splits)
            )
            map_keys.append(keys.map_keys(segment, self.splits, hashes=hashes, upstream=before))
            if segment.end is not None:
                exchange_keys.append(keys.exchange_key(segment, map_keys[-1], hashes=hashes))
        return map_keys, exchange_keys, hashes

    def _build(
        self, key: str, map_keys: list[list[str]], exchange_keys: list[str], hashes: dict[str, str]
    ) -> dict[str, Any]:
        (self.work / "cursors").mkdir(parents=True, exist_ok=True)
        self._remove_leftovers()
        decisions: tuple[Path, ...] = ()
        done: list[list[dict[str, Any]]] = []
        for segment, here in zip(self.segments, map_keys, strict=True):
            before = map_keys[segment.number - 1] if segment.number else None
            tasks = [self._map_task(segment, i, k, before, decisions) for i, k in enumerate(here)]
            done.append(self.schedule.run(segment.label, tasks))
            if segment.end is not None:
                exchange = exchange_keys[segment.number]
                decisions = self._exchange(segment, exchange, done[-1])
        return self._publish(key, map_keys, done, hashes)

    def _folder(self, key: str) -> Path:
        """Return what a task that is done wrote."""
        return self.work / str(self.schedule.journal.tasks[key]["folder"])

    def _remove_leftovers(self) -> None:
        """Remove what tasks wrote that were not committed."""
        kept = {entry["folder"] for entry in self.schedule.journal.tasks.values()} | {"cursors"}
        for folder in self.work.iterdir():
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def _task(self, key: str, label: str, function: Any, work: Any) -> Task:
        cursor = self.work / "cursors" / key[:32]
        return Task(key, label, function, work, self.work / key[:32], cursor, self.memory_bytes)

    def _map_task(
        self,
        segment: Segment,
        number: int,
        key: str,
        before: list[str] | None,
        decisions: tuple[Path, ...],
    ) -> Task:
        split = self.splits[number]
        work = MapWork(
            segment=segment,
            number=number,
            split=split if before is None else None,
            documents=None if before is None else self._folder(before[number]) / DOCUMENTS,
            decisions=decisions,
            max_set_aside=self.schedule.settings.max_quarantined,
        )
        return self._task(key, f"`{self.source}`, {segment.label}, split {split.name}", map_split, work)

    def _exchange(self, segment: Segment, key: str, done: list[dict[str, Any]]) -> tuple[Path, ...]:
        """Decide about the records of all splits; return the files with the decisions."""
        assert segment.end is not None
        label = f"{segment.end.name}: decide"
        folders = [self.work / entry["folder"] for entry in done]
        runs = tuple(
            folder / run_name(number)
            for folder, entry in zip(folders, done, strict=True)
            for number in range(entry["result"]["runs"])
        )
        total_bytes = sum(entry["result"]["record_bytes"] for entry in done)
        tasks = [
            self._task(
                keys.range_key(key, start, stop),
                f"`{self.source}`, {label}, keys from {start:,}",
                reduce_range,
                ReduceWork(segment, runs, start, stop),
            )
            for start, stop in self._ranges(total_bytes)
        ]
        self.schedule.run(label, tasks)
        decisions = tuple(self._folder(task.key) / DECISIONS for task in tasks)
        if not combines(made(segment, segment.end)):
            return decisions
        documents = tuple(folder / DOCUMENTS for folder in folders)
        work = CombineWork(segment, decisions, documents)
        label = f"{segment.end.name}: combine"
        combine = self._task(
            keys.range_key(key, -1, None), f"`{self.source}`, {label}", combine_decisions, work
        )
        self.schedule.run(label, [combine])
        return (self._folder(combine.key) / DECISIONS,)

    def _ranges(self, total_bytes: int) -> list[tuple[int, int | None]]:
        """Cut the keys so that DuckDB sorts each range in memory, and every worker has one."""
        small_enough = -(-total_bytes // max(1, self.memory_bytes // 8))
        busy = self.schedule.executor.workers if total_bytes > (16 << 20) else 1
        count = max(1, small_enough, busy)
        starts = [_KEYS * number // count for number in range(count)]
        return list(zip(starts, [*starts[1:], None], strict=True))

    def _publish(
        self,
        key: str,
        map_keys: list[list[str]],
        done: list[list[dict[str, Any]]],
        hashes: dict[str, str],
    ) -> dict[str, Any]:
        parts, rows = document_entries(done[-1]), ledger_entries(done)
        first = [entry["result"] for entry in done[0]]
        set_aside = [
            {"source": self.source, "split": spelled(self.splits[number].name), **one}
            for segment in done
            for number, entry in enumerate(segment)
            for one in entry["result"]["set_aside"]
        ]
        manifest = {
            "format_version": _FORMAT_VERSION,
            "source": self.source,
            "key": key,
            "code": keys.code_version(),
            "stages": list(self.segments[0].stages),
            "documents_in": sum(result["documents_in"] for result in first),
            "documents": sum(part["documents"] for part in parts),
            "characters_in": sum(result["characters_in"] for result in first),
            "characters": sum(entry["result"]["characters"] for entry in done[-1]),
            "left_out": dict(sorted(self.schedule.reasons.items())),
            "set_aside": set_aside,
            "inputs": [
                {"name": spelled(path.rsplit("/", 1)[-1]), "sha256": hashes[path]}
                for path in dict.fromkeys(path for split in self.splits for path in split.reads)
            ],
            "parts": parts,
            "ledger": rows,
        }
        documents = [self._folder(k) / DOCUMENTS for k in map_keys[-1]]
        ledgers = [self._folder(k) / LEDGER for here in map_keys for k in here]
        # Documents vouch for the ledger beside them: the old ones go before it changes.
        take_away(self.documents)
        publish(self.ledger, zip(ledgers, [r["name"] for r in rows], strict=True), None)
        publish(self.documents, zip(documents, [p["name"] for p in parts], strict=True), manifest)
        return manifest

    def _write_quarantine(self, set_aside: list[dict[str, Any]]) -> None:
        """Put what was set aside in this source in the place of what was before."""
        path = self.out / QUARANTINE
        # Not `splitlines`: texts hold other characters that end a line for it.
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        others = [line for line in lines if json.loads(line)["source"] != self.source]
        mine = [json.dumps(one, ensure_ascii=False) for one in set_aside]
        if mine or len(others) < len(lines):
            files.write_text(path, "".join(line + "\n" for line in [*others, *mine]))
