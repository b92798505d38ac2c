"""The journal of a corpus folder: which tasks are done, which documents are not tried again.

    {"task": KEY, "label": ..., "folder": NAME, "result": {...}, "files": [{"name", "size_bytes", "sha256"}]}
    {"guilty": KEY, "index": N, "stage": N, "detail": ...}
    {"input": PATH, "size_bytes": N, "mtime_ns": N, "ctime_ns": N, "sha256": ...}

A line is on disk before anything builds on it. A kill leaves at most one torn line, which is ignored.
Entry points: `Journal` for the one writer, `input_hashes` for the raw input.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import IO, Any

from criadero import files
from criadero.corpus.engine.flow import Guilt
from criadero.errors import ResourceError

NAME = "journal.jsonl"
_HASHING_THREADS = 4
_SAVE_HASHES_SECONDS = 2.0


class Journal:
    """What was done in one corpus folder so far, and the file it is appended to."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self.tasks: dict[str, dict[str, Any]] = {}
        self.guilty: dict[str, dict[int, Guilt]] = {}
        self._inputs: dict[tuple[str, int, int, int], str] = {}
        self._hashed: dict[str, dict[Path, tuple[int, int]]] = {}
        self._stream: IO[bytes] = self._path.open("ab+")
        self._read()

    def _read(self) -> None:
        self._stream.seek(0)
        ended = True
        for line in self._stream:
            ended = line.endswith(b"\n")
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
        if not ended:
            self._stream.write(b"\n")

    def _take(self, entry: dict[str, Any]) -> None:
        if "task" in entry:
            self.tasks[entry["task"]] = {name: entry[name] for name in ("folder", "result", "files")}
        elif "guilty" in entry:
            guilt = Guilt(entry["stage"], entry["detail"])
            self.guilty.setdefault(entry["guilty"], {})[entry["index"]] = guilt
        elif "input" in entry:
            identity = (entry["input"], entry["size_bytes"], entry["mtime_ns"], entry["ctime_ns"])
            self._inputs[identity] = entry["sha256"]

    def _append(self, *entries: dict[str, Any]) -> None:
        """Raises ResourceError if the disk is full."""
        try:
            self._stream.write(b"".join(json.dumps(entry).encode() + b"\n" for entry in entries))
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as problem:
            raise ResourceError(
                f"`{self._path}` could not be written: {problem.strerror}",
                hint="free some space; the same command goes on where this one stopped",
            ) from problem
        for entry in entries:
            self._take(entry)

    def commit(self, key: str, label: str, *, folder: str, done: dict[str, Any]) -> None:
        """Say that a task is done and that this folder holds all it wrote."""
        files.fault_point("task-written")
        self._append({"task": key, "label": label, "folder": folder, **done})
        files.fault_point("task-committed")

    def blame(self, key: str, index: int, guilt: Guilt) -> None:
        """Say that a record of a task is not to be tried again."""
        self._append({"guilty": key, "index": index, "stage": guilt.stage, "detail": guilt.detail})

    def is_done(self, key: str, work: Path) -> bool:
        """Whether a task is committed and its files are there, below `work`, with the sizes they had."""
        entry = self.tasks.get(key)
        if entry is None:
            return False
        folder = work / entry["folder"]
        try:
            return all((folder / f["name"]).stat().st_size == f["size_bytes"] for f in entry["files"])
        except OSError:
            return False

    def input_hashes(self, paths: Iterable[str], *, tick: Callable[[], None]) -> dict[str, str]:
        """Return the sha256 of each file; a folder's is that of the names and hashes of all files in it.

        Files with the size and times of last change they had before are not read again. What is no
        file here, such as a URL, stands for itself. What `tick` raises ends it; no hash so far is lost.
        """
        wanted = {path: _files_of(path) for path in dict.fromkeys(paths)}
        self._hashed |= {path: _states(found) for path, found in wanted.items()}
        known = self._hash_files({file for found in wanted.values() for file in found}, tick)
        hashes = {}
        for path, found in wanted.items():
            if found == [Path(path)]:
                hashes[path] = known[found[0]]
            else:
                listing = [path if not found else "", *(f"{f.relative_to(path)} {known[f]}" for f in found)]
                hashes[path] = files.sha256_bytes("\n".join(listing).encode())
        return hashes

    def has_changed(self, path: str) -> bool:
        """Whether a file, or one in a folder, is another one than when `input_hashes` was asked for it."""
        try:
            return self._hashed[path] != _states(_files_of(path))
        except OSError:
            return True

    def _hash_files(self, wanted: set[Path], tick: Callable[[], None]) -> dict[Path, str]:
        stats = {path: path.stat() for path in sorted(wanted)}
        # A program can set the time of content back, as `tar` does, but not that of the change itself.
        identities = {p: (str(p), s.st_size, s.st_mtime_ns, s.st_ctime_ns) for p, s in stats.items()}
        missing = [path for path, identity in identities.items() if identity not in self._inputs]
        fresh: list[dict[str, Any]] = []
        saved = monotonic()
        try:
            with ThreadPoolExecutor(_HASHING_THREADS) as threads:
                for path, sha256 in zip(missing, threads.map(files.sha256_file, missing), strict=True):
                    names = ("input", "size_bytes", "mtime_ns", "ctime_ns")
                    fresh.append({**dict(zip(names, identities[path], strict=True)), "sha256": sha256})
                    if monotonic() - saved > _SAVE_HASHES_SECONDS:
                        self._append(*fresh)
                        fresh, saved = [], monotonic()
                    tick()
        finally:
            self._append(*fresh)
        return {path: self._inputs[identity] for path, identity in identities.items()}

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def _states(paths: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    """Return sizes and times of content; those of the change itself also move with a second name."""
    stats = {path: path.stat() for path in paths}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}


def _files_of(path: str) -> list[Path]:
    file = Path(path)
    if file.is_dir():
        return sorted(inside for inside in file.rglob("*") if inside.is_file())
    return [file] if file.is_file() else []
