"""Work ahead in one background thread: `Prefetch` wraps an iterator, keeps order and passes errors on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

from criadero.errors import CriaderoError, DataError

T = TypeVar("T")

_POLL_SECONDS = 0.2


class _End:
    """The last thing the thread sends: how it ended."""

    def __init__(self, problem: BaseException | None) -> None:
        self.problem = problem


class Prefetch(Generic[T]):
    """Iterates over what a background thread prepares, at most `depth` items ahead.

    An error of ours raised in the thread is raised here as it is; any other becomes a `DataError`. A thread
    that died without a word raises too: the consumer never waits for nobody. `close` (or `with`) ends it.
    """

    def __init__(self, items: Iterator[T], *, depth: int = 2) -> None:
        self._items = items
        self._ready: queue.Queue[T | _End] = queue.Queue(maxsize=depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="criadero-loader", daemon=True)
        self._thread.start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        """Return the next item.

        Raises:
            DataError: the thread failed or died.
            StopIteration: the items ended, or `close` was called.
        """
        if self._stop.is_set():
            raise StopIteration
        item = self._wait()
        if not isinstance(item, _End):
            return item
        self.close()
        if item.problem is None:
            raise StopIteration
        if isinstance(item.problem, CriaderoError):
            raise item.problem
        raise DataError(f"the loader failed: {type(item.problem).__name__}: {item.problem}") from item.problem

    def close(self) -> None:
        """End the thread and drop what it prepared; may be called twice."""
        self._stop.set()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self) -> T | _End:
        while True:
            alive = self._thread.is_alive()  # asked before the queue: what a dead thread sent is there by now
            try:
                return self._ready.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                if not alive:
                    return _End(DataError("the loader's thread died without an error"))

    def _work(self) -> None:
        try:
            for item in self._items:
                if not self._send(item):
                    return
            self._send(_End(None))
        except BaseException as problem:  # whatever it was, the consumer must hear of it
            self._send(_End(problem))

    def _send(self, item: T | _End) -> bool:
        while not self._stop.is_set():
            try:
                self._ready.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False
