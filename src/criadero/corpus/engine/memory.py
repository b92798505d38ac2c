"""The memory of one worker: a task that takes more than its share ends its own process, and nobody else's.

Entry point: `guard`. A thread looks at what is really in use; addresses alone say little, because each of the
many threads of Ray reserves eight megabytes that it never touches. RLIMIT_DATA stands behind it for a single
allocation that would be over before anybody looks.
"""

from __future__ import annotations

import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from criadero.corpus.engine.cursor import Cursor

_LOOK_SECONDS = 0.02
# Addresses that Ray, DuckDB and the allocator may still reserve without using them.
_RESERVE_BYTES = 1 << 30


@contextmanager
def guard(cursor: Cursor, memory_bytes: int) -> Iterator[None]:
    """End this process when it uses `memory_bytes` more than it did at its first task.

    The cursor says why, so that the record that was being worked on is blamed.
    """
    limit_bytes = _at_first(memory_bytes) + memory_bytes
    over = threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_SECONDS):
            if used_bytes() > limit_bytes:
                end_process(cursor)

    thread = threading.Thread(target=look, name="memory", daemon=True)
    thread.start()
    try:
        yield
    except MemoryError:
        # The heap stays full of holes; a new process begins with none.
        end_process(cursor)
        raise
    finally:
        over.set()
        thread.join()


def end_process(cursor: Cursor) -> None:
    """Note the reason and end at once, with nothing that could need memory."""
    cursor.out_of_memory()
    os.kill(os.getpid(), signal.SIGKILL)


def used_bytes() -> int:
    """Return the private memory of this process that is in use; libraries and mapped files do not count."""
    resident, shared = Path("/proc/self/statm").read_text().split()[1:3]
    return (int(resident) - int(shared)) * resource.getpagesize()


_first: list[int] = []


def _at_first(memory_bytes: int) -> int:
    """Return what was in use before the first task; set up the process when called for that."""
    if not _first:
        # Arrow's own allocators keep what is freed.
        pa.set_memory_pool(pa.system_memory_pool())
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        addresses = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (addresses + memory_bytes + _RESERVE_BYTES, hard))
        _first.append(used_bytes())
    return _first[0]
