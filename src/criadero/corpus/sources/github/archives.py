"""Files inside archives and folders, read one by one and never written anywhere.

Entry point: `members(path, wanted, limits)` for .tar, .tar.gz, .tgz, .zip, .whl and folders. Names that lead
out of the archive, links and devices are refused; a member that is too large or damaged costs itself; an
archive that unpacks to far more than it is, or has too many members, is left where that shows. What is left
out is a `BadRecord` with its place.
"""

from __future__ import annotations

import gzip
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from criadero.corpus.document import BadRecord
from criadero.corpus.sources.member_names import is_inside

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip", ".whl")
# What the decoders of the standard library raise on damaged input.
_DAMAGE = (
    *(OSError, EOFError, ValueError, OverflowError, struct.error, zlib.error, lzma.LZMAError),
    *(tarfile.TarError, zipfile.BadZipFile, NotImplementedError, RuntimeError),
)
# No header of a tar member is longer; a file that claims one would be read into memory whole.
_MAX_READ_BYTES = 1 << 24
_FREE_BYTES = 1 << 26
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may hold.

    Attributes:
        file_bytes: longest file that is read.
        members: files and folders of one archive.
        ratio: bytes unpacked for each byte of the archive; 64 MB are free.
    """

    file_bytes: int
    members: int
    ratio: int


@dataclass(frozen=True, slots=True)
class Member:
    """A file of an archive; `data` is None for one that was not wanted."""

    path: str
    data: bytes | None


class _TooMuch(Exception):
    """The archive is left here; the arguments are reason and detail."""


@dataclass
class _Gate:
    """Decides about members by name, size and number.

    Attributes:
        name: of the archive, for what is refused.
        free_bytes: that may still be unpacked.
    """

    name: str
    limits: Limits
    free_bytes: float
    seen: set[str] = field(default_factory=set)

    def refuse(self, path: str, size_bytes: int) -> BadRecord | None:
        """Return why a file is not read.

        Raises:
            _TooMuch: neither this nor any later one is.
        """
        if len(self.seen) >= self.limits.members:
            raise _TooMuch("too_many_members", f"more than {self.limits.members:,}")
        if not is_inside(path):
            return self.bad(path, "outside_archive", "the name leads out of the archive")
        if path in self.seen:
            return self.bad(path, "duplicate_path", "a file of this name came before")
        self.seen.add(path)
        if size_bytes > self.limits.file_bytes:
            return self.bad(path, "too_large", f"{size_bytes:,} bytes, {self.limits.file_bytes:,} allowed")
        return None

    def bad(self, path: str, reason: str, detail: str) -> BadRecord:
        """Name a member that was left out."""
        place = path.encode("utf-8", "backslashreplace").decode()
        return BadRecord(f"{self.name}:{place}", reason, detail)

    def unpacked(self, size_bytes: int) -> None:
        """Count bytes that came out of the archive.

        Raises:
            _TooMuch: there are too many for the size of the archive.
        """
        self.free_bytes -= size_bytes
        if self.free_bytes < 0:
            raise _TooMuch("compression_ratio", f"unpacks to more than {self.limits.ratio} times its size")


def members(
    path: Path, name: str, wanted: Callable[[str], bool], *, limits: Limits
) -> Iterator[Member | BadRecord]:
    """Yield the files of an archive in its order, those of a folder by path.

    Args:
        path: of the archive or folder.
        name: what the ids of bad records begin with.
        wanted: whether a file's content is needed.
        limits: what the archive may hold.
    """
    if path.is_dir():
        yield from _of_folder(path, wanted, _Gate(name, limits, float("inf")))
        return
    try:
        gate = _Gate(name, limits, _FREE_BYTES + limits.ratio * path.stat().st_size)
        of_archive = _of_zip if path.suffix in {".zip", ".whl"} else _of_tar
        yield from of_archive(path, wanted, gate)
    except _TooMuch as problem:
        yield BadRecord(name, *problem.args)
    except _DAMAGE as problem:
        yield BadRecord(name, "bad_archive", f"cannot be read on: {problem}"[:300])


def _of_folder(folder: Path, wanted: Callable[[str], bool], gate: _Gate) -> Iterator[Member | BadRecord]:
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if each != ".git")
        for name in sorted(names):
            file = Path(base, name)
            path = file.relative_to(folder).as_posix()
            try:
                status = file.lstat()
                if not stat.S_ISREG(status.st_mode):
                    yield gate.bad(path, "no_file", "a link or device")
                elif fault := gate.refuse(path, status.st_size):
                    yield fault
                else:
                    yield Member(path, file.read_bytes() if wanted(path) else None)
            except OSError as problem:
                yield gate.bad(path, "unreadable", str(problem.strerror))
            except _TooMuch as problem:
                yield BadRecord(gate.name, *problem.args)
                return


def _of_zip(path: Path, wanted: Callable[[str], bool], gate: _Gate) -> Iterator[Member | BadRecord]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            mode = entry.external_attr >> 16
            if entry.is_dir():
                continue
            if stat.S_IFMT(mode) not in {0, stat.S_IFREG}:
                yield gate.bad(entry.filename, "no_file", "a link or device")
            elif fault := gate.refuse(entry.filename, entry.file_size):
                yield fault
            elif not wanted(entry.filename):
                yield Member(entry.filename, None)
            else:
                gate.unpacked(entry.file_size)
                try:
                    yield Member(entry.filename, archive.read(entry))
                except _DAMAGE as problem:
                    yield gate.bad(entry.filename, "bad_member", str(problem)[:300])


def _of_tar(path: Path, wanted: Callable[[str], bool], gate: _Gate) -> Iterator[Member | BadRecord]:
    with path.open("rb") as raw:
        stream = _Forward(raw if path.suffix == ".tar" else gzip.GzipFile(fileobj=raw), gate)
        archive = tarfile.TarFile(fileobj=stream)  # type: ignore[arg-type]
        while (entry := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # it would keep all of them
            if entry.isdir():
                continue
            if not entry.isreg():
                yield gate.bad(entry.name, "no_file", "a link or device")
            elif fault := gate.refuse(entry.name, entry.size):
                yield fault
            elif wanted(entry.name) and (content := archive.extractfile(entry)) is not None:
                yield Member(entry.name, content.read())
            else:
                yield Member(entry.name, None)
        # It takes a header that is cut or damaged for the end.
        if stream.last_block != bytes(_BLOCK):
            raise tarfile.ReadError("no end mark: cut or damaged")


class _Forward:
    """What `tarfile` needs of a stream: reads of bounded size, and seeks that only go forward."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, gate: _Gate) -> None:
        self._stream = stream
        self._gate = gate
        self._at = 0
        self.last_block = b""

    def read(self, size_bytes: int = -1) -> bytes:
        if not 0 <= size_bytes <= max(_MAX_READ_BYTES, self._gate.limits.file_bytes):
            raise tarfile.ReadError(f"a header of {size_bytes:,} bytes")
        self.last_block = self._stream.read(size_bytes)
        self._at += len(self.last_block)
        self._gate.unpacked(len(self.last_block))
        return self.last_block

    def tell(self) -> int:
        return self._at

    def seek(self, place: int, whence: int = 0) -> Any:
        if whence or place < self._at:
            raise tarfile.ReadError("a member before the one before it")
        while self._at < place and self.read(min(place - self._at, 1 << 20)):
            pass
        return self._at

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True
