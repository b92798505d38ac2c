"""Where a running task is, in a small file that outlives it: what the driver watches and whom it blames.

`Cursor` is the task's side, `Position` what the driver reads. The place is one number written into shared
memory before each document, so it is true at whatever instant the task is killed, and costs nothing.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

_SIZE_BYTES = 1 << 14
_HEADER_BYTES = 16
_STAGE_BITS = 16
_OUT_OF_MEMORY = 1 << 63
# Stages that no recipe has: loading models and opening files; writing what was made.
STARTING = (1 << _STAGE_BITS) - 1
WRITING = (1 << _STAGE_BITS) - 2
_SYNC_SECONDS = 5.0


@dataclass(frozen=True)
class Position:
    """Where a task was when the driver looked.

    Attributes:
        index: number of the record in the split that is read or worked on.
        stage: place of the running stage in the recipe, or STARTING or WRITING.
        out_of_memory: the task ended because memory ran out.
        left_out: documents left out so far, by reason.
    """

    index: int = 0
    stage: int = STARTING
    out_of_memory: bool = False
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def place(self) -> tuple[int, int]:
        """Record and stage."""
        return self.index, self.stage

    @property
    def in_document(self) -> bool:
        """Whether a document, or the reading of one, could be at fault."""
        return self.stage < WRITING


class Cursor:
    """The task's own position, kept in a file.

    Attributes:
        place: one unsigned number, `index << 16 | stage`; stages are set by writing it.
        beat: called now and then while documents flow; ends the task by raising.
    """

    def __init__(self, path: Path, *, beat: Callable[[], None] | None = None) -> None:
        self.beat = beat
        # Under a name of its own at first: an orphan of a killed driver that begins the same task must not
        # cut the file that this process has mapped, which would end it with SIGBUS.
        own = path.with_name(f"{path.name}.{os.getpid()}")
        with own.open("wb+") as stream:
            # On a full disk the first write to a hole in a mapped file would kill the process.
            os.posix_fallocate(stream.fileno(), 0, _SIZE_BYTES)
            self._map = mmap.mmap(stream.fileno(), _SIZE_BYTES)
        self.place = memoryview(self._map)[:8].cast("Q")
        self.set(0, STARTING)
        self._map.flush()
        own.replace(path)
        self._synced = monotonic()

    def set(self, index: int, stage: int) -> None:
        """Say which record is in which stage."""
        self.place[0] = index << _STAGE_BITS | stage

    def at_stage(self, stage: int) -> None:
        """Say that the same record, or none, is in another stage."""
        self.set(self.place[0] >> _STAGE_BITS, stage)

    def out_of_memory(self) -> None:
        """Say why the task ends at this place."""
        self.place[0] |= _OUT_OF_MEMORY

    def publish(self, left_out: Mapping[str, int]) -> None:
        """Show the counts so far; the commonest ones if there are too many."""
        text = json.dumps(dict(Counter(left_out).most_common(100))).encode()
        if len(text) <= _SIZE_BYTES - _HEADER_BYTES:
            self._map[_HEADER_BYTES : _HEADER_BYTES + len(text)] = text
            self._map[8:_HEADER_BYTES] = struct.pack("Q", len(text))
        if monotonic() - self._synced > _SYNC_SECONDS:
            # A driver on another machine sees through a shared folder only what was written to it.
            self._map.flush()
            self._synced = monotonic()
        if self.beat is not None:
            self.beat()

    def close(self) -> None:
        """Let go of the file."""
        self.place.release()
        self._map.close()


def look(path: Path) -> Position | None:
    """Return where the task that writes `path` is, None if it has not begun."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(data) < _SIZE_BYTES:
        return None
    place, length = struct.unpack_from("QQ", data)
    left_out = {}
    # Counts being written this moment are shown the next time.
    with contextlib.suppress(ValueError):
        left_out = json.loads(data[_HEADER_BYTES : _HEADER_BYTES + length])
    index = (place & ~_OUT_OF_MEMORY) >> _STAGE_BITS
    return Position(index, place & (1 << _STAGE_BITS) - 1, bool(place & _OUT_OF_MEMORY), left_out)
