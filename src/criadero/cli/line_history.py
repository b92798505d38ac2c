"""Lines typed in earlier sessions, for the arrow keys of the next one.

Entry point: `LineHistory`. The file is the user's own (mode 0600), one JSON string a line, so that a pasted
block stays one entry, and is kept short. Every line is on the disk when it was entered; several programs may
write at once. A history that cannot be read or written is said once and does without.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from criadero.notices import say_once

MAX_LINES = 1000
MAX_BYTES = 1 << 20
_MAX_LINE_CHARACTERS = 4000


def history_path() -> Path:
    """Return where `criadero chat` keeps its history: `$XDG_STATE_HOME`, else ~/.local/state."""
    state = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(state) if os.path.isabs(state) else Path(os.path.expanduser("~/.local/state"))
    return folder / "criadero" / "chat-history.jsonl"


class LineHistory:
    """The lines in a history file, oldest first.

    Args:
        path: the file, made with its folder when the first line is added; None keeps nothing on the disk.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.lines: list[str] = []
        """What is known when the session begins, and what it adds."""
        if path is not None and path.exists():
            with self._tolerated(), _locked(path) as descriptor:
                self.lines = _read(descriptor)
                _shorten(descriptor, self.lines)

    def add(self, line: str) -> bool:
        """Keep a line, unless it is blank, very long or the same as the last; return whether it was kept."""
        is_new = not self.lines or self.lines[-1] != line
        if not line.strip() or len(line) > _MAX_LINE_CHARACTERS or not is_new:
            return False
        self.lines.append(line)
        if self._path is not None:
            with self._tolerated():
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with _locked(self._path) as descriptor:
                    os.lseek(descriptor, 0, os.SEEK_END)
                    os.write(descriptor, json.dumps(line).encode() + b"\n")
        return True

    @contextmanager
    def _tolerated(self) -> Iterator[None]:
        try:
            yield
        except OSError as problem:
            say_once(f"the history of lines is not kept: {problem}")
            self._path = None


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Open a file that is nobody else's to read, for one program at a time."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> list[str]:
    """Return the newest lines, without any that are damaged."""
    start = max(0, os.fstat(descriptor).st_size - MAX_BYTES)
    found = []
    for row in os.pread(descriptor, MAX_BYTES, start).splitlines()[-MAX_LINES:]:
        try:
            line = json.loads(row)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, str) and len(line) <= _MAX_LINE_CHARACTERS:
            found.append(line)
    return found


def _shorten(descriptor: int, lines: list[str]) -> None:
    """Write the file anew where it holds more than the lines that count."""
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    if os.fstat(descriptor).st_size > len(data):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, data, 0)
