"""Files that are whole or absent: atomic writes, hashes, free space and safe paths.

Entry points: `atomic_write` for one file, `atomic_folder` for many, `sha256_file`, `require_free_bytes`.
Everything that must survive a kill -9 at any moment goes through here. `fault_point` names the moments
at which tests interrupt a write; it does nothing otherwise.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from criadero.errors import CriaderoError, DataError, ResourceError, RunError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Called with the name of each moment a write can be interrupted at; tests replace it.
on_fault_point: Callable[[str], None] | None = None


def fault_point(name: str) -> None:
    """Name a moment at which a test may interrupt the process."""
    if on_fault_point is not None:
        on_fault_point(name)


def temporary_path(final: Path) -> Path:
    """Return the name beside `final` that this process writes to before the rename."""
    return final.with_name(f"{final.name}.tmp-{os.getpid()}")


def fsync(path: Path) -> None:
    """Make the content of a file durable, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_new(path: Path) -> None:
    """Check that a file that a user wants written is not there yet.

    Raises:
        RunError: it is.
    """
    if path.exists():
        raise RunError(f"`{path}` exists already", hint="choose another output file or remove this one")


@contextmanager
def atomic_large_write(path: Path) -> Iterator[IO[bytes]]:
    """`atomic_write` of a new file that a user named and that may not fit.

    Raises:
        RunError: `path` exists already, or nothing can be written beside it.
        ResourceError: the disk is full.
    """
    require_new(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary_path(path).touch()
    except (OSError, ValueError) as problem:
        raise _not_writable(path, problem) from problem
    try:
        with atomic_write(path) as stream:
            yield stream
    except OSError as problem:
        if problem.errno in _FULL:
            raise _disk_full(path, problem) from problem
        raise


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for binary writing that appears under `path` only when the block ends well.

    Written aside, flushed, fsynced and renamed; on any error the old file stays and the new one is removed.
    """
    temporary = temporary_path(path)
    try:
        with temporary.open("wb") as stream:
            yield stream
            fault_point("file-written")
            stream.flush()
            os.fsync(stream.fileno())
        fault_point("file-synced")
        temporary.replace(path)
        fsync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left half-written directly in a folder that nobody else is writing."""
    for leftover in folder.glob("*.tmp-*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block ends well; it is removed otherwise.

    Raises:
        RunError: `path` exists already, or nothing can be written beside it.
        ResourceError: the disk is full.
    """
    if path.exists():
        raise RunError(f"`{path}` exists already", hint="choose another output folder or remove this one")
    temporary = temporary_path(path)
    # Process ids come back, in a container at every start; what is there was left by a killed process.
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
    except (OSError, ValueError) as problem:
        raise _not_writable(path, problem) from problem
    try:
        yield temporary
        for part in temporary.rglob("*"):
            if part.is_file() or part.is_dir():
                fsync(part)
        commit_folder(temporary, path)
    except BaseException as problem:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(problem, OSError) and problem.errno in _FULL:
            raise _disk_full(path, problem) from problem
        raise


def commit_folder(temporary: Path, final: Path) -> None:
    """Give a finished folder its final name, durably."""
    fsync(temporary)
    fault_point("folder-written")
    temporary.rename(final)
    fsync(final.parent)
    fault_point("folder-renamed")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_write(path) as stream:
        stream.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented, keys in the order given."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def append_line(path: Path, line: str, *, durable: bool) -> None:
    """Append a line; what an earlier process left torn is closed with a line end first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as stream:
        if stream.seek(0, os.SEEK_END) > 0:
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                line = "\n" + line
        stream.write(line.encode() + b"\n")
        stream.flush()
        if durable:
            os.fsync(stream.fileno())


def read_json(path: Path, *, max_bytes: int = 1 << 28, error: type[CriaderoError] = DataError) -> Any:
    """Read a JSON file of bounded size.

    Raises:
        error: the file is missing, larger than `max_bytes`, or not JSON.
    """
    try:
        size_bytes = path.stat().st_size
        if size_bytes > max_bytes:
            raise error(
                f"`{path}` has {size_bytes:,} bytes, more than the {max_bytes:,} allowed for such a file"
            )
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise error(f"`{path}` does not exist") from None
    except (OSError, ValueError, RecursionError) as problem:
        raise error(f"`{path}` is not readable JSON: {problem}") from problem


def sha256_bytes(data: bytes) -> str:
    """Return the hexadecimal sha256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the hexadecimal sha256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_bytes(folder: Path) -> int:
    """Return the size of all files below `folder`, bytes."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def require_free_bytes(folder: Path, needed_bytes: int, *, purpose: str) -> None:
    """Check that the file system of `folder` (or its nearest existing parent) has room.

    Raises:
        ResourceError: less than `needed_bytes` is free.
    """
    existing = folder
    while not existing.exists():
        existing = existing.parent
    free_bytes = shutil.disk_usage(existing).free
    if free_bytes < needed_bytes:
        raise ResourceError(
            f"{purpose} needs {format_bytes(needed_bytes)} in `{folder}`, "
            f"{format_bytes(free_bytes)} are free",
            hint="free some space or choose a folder on another disk",
        )


def require_writable_folder(folder: Path) -> None:
    """Create `folder` if needed and prove that files can be written in it.

    Raises:
        RunError: it cannot be created or written.
    """
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except (OSError, ValueError) as problem:
        raise _not_writable(folder, problem) from problem


def _disk_full(path: Path, problem: OSError) -> ResourceError:
    return ResourceError(
        f"`{path}` could not be written: {problem.strerror}",
        hint="free some space or choose a folder on another disk",
    )


def _not_writable(folder: Path, problem: OSError | ValueError) -> RunError:
    """Say why a folder cannot be made or written; a NUL in its name is a ValueError."""
    reason = problem.strerror if isinstance(problem, OSError) else problem
    return RunError(
        f"`{folder}` cannot be written: {reason}", hint="choose an output folder that you may write to"
    )


def safe_join(folder: Path, name: str) -> Path:
    """Join a file name that came from outside to `folder`.

    Raises:
        DataError: the name leads out of the folder (by `..`, a symbolic link, or because it is absolute), is
            the folder itself, or cannot be a file name at all.
    """
    candidate = folder / name
    try:
        inside = Path(os.path.realpath(folder)) in Path(os.path.realpath(candidate)).parents
    except ValueError:  # a NUL, or half a surrogate pair
        inside = False
    if not inside:
        raise DataError(f"the file name {name!r} leads out of `{folder}`, or names nothing in it")
    return candidate


def format_bytes(size_bytes: float) -> str:
    """Return a size for people: `3.1 GB`."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if abs(size_bytes) < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "bytes" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} PB"
