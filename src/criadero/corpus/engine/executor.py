"""Where tasks run: in this process, or on Ray (see `ray_executor`). Tasks read and write files; only their
descriptions and counts travel.

Entry points: the protocol `Executor`, and `Inline` for tests and small inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from criadero.corpus.engine.made import forget
from criadero.corpus.engine.tasks import Task, perform

POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Ended:
    """A task that ran, or that was lost.

    Attributes:
        task: which.
        done: what `perform` returned, None if it did not get so far.
        error: the exception it raised.
        lost: the node it ran on is gone, which says nothing about the task.

    With neither `done` nor `error` nor `lost`, the process died.
    """

    task: Task
    done: dict[str, Any] | None = None
    error: Exception | None = None
    lost: bool = False


class Executor(Protocol):
    """Runs tasks, each once; what is to be tried again is submitted again."""

    @property
    def workers(self) -> int:
        """How many tasks run at a time."""

    def submit(self, task: Task) -> None:
        """Run a task when a worker is free."""

    def ended(self, tick: Callable[[], None]) -> list[Ended]:
        """Return tasks that ended, waiting for the first of them at most POLL_SECONDS.

        `tick` is called at least once, and often where tasks run inside this call; what it raises ends them.
        """

    def kill(self, task: Task) -> None:
        """End a running task; it is returned by `ended` as one whose process died."""


class Inline:
    """Runs tasks in this process, one after the other.

    Nothing protects against a document that kills the process, and none is ever stopped for taking long.
    """

    workers = 1

    def __init__(self) -> None:
        self._waiting: list[Task] = []
        self._killed: list[Task] = []

    def submit(self, task: Task) -> None:
        """Keep a task until `ended` is called."""
        self._waiting.append(task)

    def ended(self, tick: Callable[[], None]) -> list[Ended]:
        """Run the oldest task."""
        tick()
        if self._killed or not self._waiting:
            killed, self._killed = self._killed, []
            return [Ended(task) for task in killed]
        task = self._waiting.pop(0)
        try:
            return [Ended(task, done=perform(task, beat=tick))]
        except Exception as problem:
            return [Ended(task, error=problem)]
        finally:
            if not self._waiting:
                forget()

    def kill(self, task: Task) -> None:
        """Do not run a task that waits."""
        if task in self._waiting:
            self._waiting.remove(task)
            self._killed.append(task)
