"""Runs tasks to their end whatever happens to the workers: skips what is done, tries again what died.

Entry point: `Schedule.run`. Two deaths, or two timeouts, at the same document set exactly this document
aside; so does a reader that cannot get past a record, at the cost of the rest of its split.
"""

from __future__ import annotations

import logging
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

from criadero.corpus.engine.config import EngineConfig
from criadero.corpus.engine.cursor import STARTING, Position, look
from criadero.corpus.engine.executor import Ended, Executor
from criadero.corpus.engine.flow import Guilt, ReaderFailed
from criadero.corpus.engine.journal import Journal
from criadero.corpus.engine.progress import OnProgress, Progress, Rate
from criadero.corpus.engine.tasks import MapWork, Task
from criadero.errors import CriaderoError, DataError, ResourceError, StoppedEarly

logger = logging.getLogger("criadero")

_TRIES_PER_RECORD = 2
# A worker that dies while it loads models or writes files gives nobody to blame; nor do workers that die at
# another record each time, as where memory is short on the machine.
_TRIES_PER_TASK = 5
_TRIES_AT_ANY_RECORD = 25
# Loading a model or writing a group may take longer than a document.
_PATIENCE = 10


@dataclass
class _Watched:
    """A task that was submitted, and what was seen of it."""

    task: Task
    position: Position = field(default_factory=Position)
    since: float = 0.0
    late: str = ""
    suspect: int = -1
    blames: int = 0
    deaths: int = 0
    deaths_in_records: int = 0


@dataclass
class Schedule:
    """Runs the tasks of one source.

    Attributes:
        source: name of the source.
        executor: runs them.
        journal: what is done.
        settings: limits.
        progress: is told how far we are.
        stop: whether to end early.
        reasons: documents left out by the tasks that are done, by reason.
    """

    source: str
    executor: Executor
    journal: Journal
    settings: EngineConfig
    progress: OnProgress | None
    stop: Callable[[], bool] | None
    reasons: Counter[str] = field(default_factory=Counter)
    set_aside: list[dict[str, Any]] = field(default_factory=list)
    _watched: dict[str, _Watched] = field(default_factory=dict)
    _shown: float = 0.0
    _part: _Part = field(default_factory=lambda: _Part("", 0))

    def run(self, stage: str, tasks: Sequence[Task]) -> list[dict[str, Any]]:
        """Run tasks that do not depend on each other; return what each gave to the journal, in their order.

        Raises:
            StoppedEarly: asked to stop; what is done is in the journal.
            DataError: a stage cannot be made, a task dies without a document to blame, or too many documents
                were set aside.
            ResourceError: the disk is full.
        """
        self._part = _Part(stage, len(tasks))
        waiting = []
        for task in reversed(tasks):
            if self.journal.is_done(task.key, task.folder.parent):
                self._count(task)
            else:
                waiting.append(self._with_guilt(task))
        try:
            while waiting or self._watched:
                self.tick()
                while waiting and len(self._watched) < self.executor.workers:
                    self._submit(_Watched(waiting.pop()))
                for ended in self.executor.ended(self.tick):
                    self._take(ended)
                self._watch()
        finally:
            self._end_all()
        self._show()
        return [self.journal.tasks[task.key] for task in tasks]

    def tick(self) -> None:
        """Show progress about every second; raise StoppedEarly if asked to stop."""
        if self.stop is not None and self.stop():
            raise StoppedEarly(
                f"stopped in the middle of `{self.source}`",
                hint="run the same command again to go on; nothing that is done is done again",
            )
        if self.progress is not None and monotonic() - self._shown >= 1:
            self._show()

    def _submit(self, watched: _Watched) -> None:
        # A try that was given up may still be writing, on a node that is only slow or for a driver that died.
        name = f"{watched.task.key[:32]}-{secrets.token_hex(4)}"
        task = replace(watched.task, folder=watched.task.folder.with_name(name))
        task.cursor.unlink(missing_ok=True)
        watched.task = task
        watched.position, watched.since, watched.late = Position(), monotonic(), ""
        self.executor.submit(task)
        self._watched[task.key] = watched

    def _with_guilt(self, task: Task) -> Task:
        guilty = self.journal.guilty.get(task.key)
        if not guilty or not isinstance(task.work, MapWork):
            return task
        return replace(task, work=replace(task.work, guilty=dict(guilty)))

    def _count(self, task: Task) -> None:
        """Add a finished task to the sums."""
        result = self.journal.tasks[task.key]["result"]
        self._part.done += 1
        self._part.documents += result.get("records", 0)
        self.reasons.update(result.get("left_out", {}))
        self.set_aside.extend(result.get("set_aside", []))
        if len(self.set_aside) > self.settings.max_quarantined:
            raise _too_many(self.source, self.set_aside)

    def _take(self, ended: Ended) -> None:
        watched = self._watched.pop(ended.task.key)
        task = watched.task
        if ended.done is not None:
            self._refuse_changed_input(task)
            self.journal.commit(task.key, task.label, folder=task.folder.name, done=ended.done)
            for one in ended.done["result"].get("set_aside", []):
                logger.warning("set aside in %s: %s", task.label, _say(one))
            self._count(task)
            task.cursor.unlink(missing_ok=True)
            return
        for leftover in task.folder.parent.glob(f"{task.folder.name}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        if isinstance(ended.error, ReaderFailed):
            self._blame(watched, ended.error.index, 0, f"the reader raised {ended.error.detail}")
        elif ended.error is not None:
            raise _as_ours(task, ended.error)
        elif not ended.lost:
            self._died(watched)
        self._submit(watched)

    def _refuse_changed_input(self, task: Task) -> None:
        """Check that what a task read is what its key says it read."""
        split = task.work.split if isinstance(task.work, MapWork) else None
        changed = [] if split is None else [path for path in split.reads if self.journal.has_changed(path)]
        if changed:
            raise DataError(
                f"`{changed[0]}` changed while it was read",
                hint="run the same command again once it stays as it is; what is done is not done again",
            )

    def _died(self, watched: _Watched) -> None:
        """Find out which document a worker died at."""
        position = look(watched.task.cursor)
        what = watched.late or "the worker died"
        if position is not None and position.out_of_memory:
            what = "the worker ran out of memory"
        if position is None or not position.in_document:
            watched.deaths += 1
            if watched.deaths >= _TRIES_PER_TASK:
                raise DataError(
                    f"{watched.task.label}: {what} {watched.deaths} times, in no document",
                    hint="perhaps `engine.document_seconds` is too short for such an input"
                    if watched.late
                    else "perhaps the memory allowed is too small for the models of this stage",
                )
            logger.warning("%s: %s, in no document; trying again", watched.task.label, what)
            return
        watched.deaths_in_records += 1
        if watched.deaths_in_records >= _TRIES_AT_ANY_RECORD:
            raise DataError(
                f"{watched.task.label}: {what} {watched.deaths_in_records} times, at different records",
                hint="perhaps the machine has less memory than was allowed",
            )
        self._blame(watched, position.index, position.stage, what)

    def _blame(self, watched: _Watched, index: int, stage: int, what: str) -> None:
        """Count a failure at a record; at the second one it is not tried again."""
        task = watched.task
        # A document that another try got past is innocent.
        watched.blames = watched.blames + 1 if watched.suspect == index else 1
        watched.suspect = index
        if watched.blames < _TRIES_PER_RECORD:
            logger.warning("%s: %s at record %d; trying again", task.label, what, index)
            return
        guilt = Guilt(stage, f"{what}, {_TRIES_PER_RECORD} times")
        if not isinstance(task.work, MapWork) or (stage == 0 and task.work.split is None):
            raise DataError(f"{task.label}: {guilt.detail}")
        self.journal.blame(task.key, index, guilt)
        watched.task = self._with_guilt(task)
        watched.deaths_in_records = 0

    def _watch(self) -> None:
        """Look where the tasks are; kill those that are too long at one place, or at getting to the first."""
        now = monotonic()
        for watched in self._watched.values():
            position = look(watched.task.cursor)
            if position is not None and position.place != watched.position.place:
                watched.position, watched.since = position, now
            elif not watched.late:
                self._judge(watched, now - watched.since)

    def _judge(self, watched: _Watched, waited_seconds: float) -> None:
        limit = self.settings.document_seconds * (1 if watched.position.in_document else _PATIENCE)
        if waited_seconds > limit:
            watched.late = f"no end after {limit:g} seconds"
            self.executor.kill(watched.task)

    def _end_all(self) -> None:
        """End what still runs, after an error or when asked to stop."""
        for watched in self._watched.values():
            self.executor.kill(watched.task)
        deadline = monotonic() + 10
        while self._watched and monotonic() < deadline:
            ended = self.executor.ended(lambda: None)
            for one in ended:
                self._watched.pop(one.task.key, None)
        self._watched.clear()

    def _show(self) -> None:
        if self.progress is None:
            return
        self._shown = monotonic()
        seen = [look(watched.task.cursor) for watched in self._watched.values()]
        positions = [position for position in seen if position is not None]
        reasons = self.reasons.copy()
        for position in positions:
            reasons.update(position.left_out)
        running = sum(position.index for position in positions if position.stage != STARTING)
        self.progress(self._part.progress(self.source, running, reasons))


@dataclass
class _Part:
    """The tasks that run now, counted."""

    stage: str
    total: int
    done: int = 0
    documents: int = 0
    rate: Rate = field(default_factory=Rate)

    def progress(self, source: str, running: int, reasons: Counter[str]) -> Progress:
        """Return how far it is, with `running` records in tasks that are not finished."""
        documents = self.documents + running
        # A running task is as large as a finished one, as far as anybody knows.
        typical = self.documents / self.done if self.done else 0
        whole = self.done + (running / typical if typical else 0.0)
        speed = self.rate.update(documents)
        left = (self.total - whole) * typical / speed if speed and typical else None
        return Progress(
            source=source,
            stage=self.stage,
            splits_done=self.done,
            splits_total=self.total,
            documents=documents,
            documents_per_second=speed,
            seconds_left=None if left is None else max(0.0, left),
            reasons=reasons,
        )


def _as_ours(task: Task, problem: Exception) -> CriaderoError:
    """Return the error to raise for an exception that is nobody's document's fault."""
    if isinstance(problem, ResourceError):
        hint = "free some space or choose another disk; the same command goes on where this one stopped"
        return ResourceError(problem.message, hint=hint)
    if isinstance(problem, CriaderoError):
        return problem
    error = DataError(f"{task.label} failed: {type(problem).__name__}: {problem}")
    error.__cause__ = problem
    return error


def _too_many(source: str, set_aside: Sequence[dict[str, Any]]) -> DataError:
    shown = "\n".join(f"  - {_say(one)}" for one in set_aside[:5])
    return DataError(
        f"{len(set_aside)} documents of `{source}` had to be set aside, the first:\n{shown}",
        hint="correct the stage, or raise `max_quarantined`; the rest goes on where it stopped",
    )


def _say(one: dict[str, Any]) -> str:
    return f"record {one['index']} {one['id']!r} in `{one['stage']}`: {one['reason']}: {one['detail']}"
