"""Archives of papers, member by member, nothing written: tars of many papers, and the files of one.

Entry points: `papers` for an `arXiv_src_*.tar`, `unpack` for one paper, a gzipped tar, a gzipped file or a
plain one. Only regular files with names inside of the archive are read; sizes, counts and ratios are capped.
"""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, cast

from criadero.corpus.document import BadRecord
from criadero.corpus.sources.arxiv.project import TEX_SUFFIXES, Failure
from criadero.corpus.sources.member_names import is_inside

# Papers with many figures have some hundred megabytes; of TeX, a book has a few.
MAX_PAPER_BYTES = 1 << 30
MAX_TEX_BYTES = 1 << 24
MAX_MEMBERS = 10_000
# PostScript figures may be mostly zeros, and gzip at its best makes 1032 bytes of one.
MAX_RATIO = 500
HARMLESS_BYTES = 1 << 24
# Headers whose content tarfile itself reads into memory.
_EXTENSIONS = frozenset(
    {
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    }
)
_MAX_EXTENSION_BYTES = 1 << 20
_MAX_READ_BYTES = 1 << 24
_BLOCK_BYTES = 512
_INPUT_SUFFIXES = (*TEX_SUFFIXES, ".txt", ".inc", ".def", ".tikz", ".pgf", ".bbl")
_UNREADABLE = (OSError, EOFError, zlib.error, tarfile.TarError, ValueError, OverflowError, RecursionError)


@dataclass
class Project:
    """The files of a paper that can have text.

    Attributes:
        files: bytes by name, as a TeX run would find them.
        refused: names of members that are no plain files inside of the archive.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)


def papers(path: Path) -> Iterator[tuple[str, IO[bytes]] | BadRecord]:
    """Yield name and content of every file in a tar, which may be read until the next one is asked for.

    After a damaged header, reading goes on at the next one that is whole.
    """
    with path.open("rb") as stream:
        start: int | None = 0
        while start is not None:
            stream.seek(start)
            try:
                yield from _members(path.name, stream)
                return
            except _UNREADABLE as problem:
                where = max(stream.tell() - _BLOCK_BYTES, start)
                yield BadRecord(f"{path.name}@{where}", "bad_archive", f"{type(problem).__name__}: {problem}")
            start = _next_header(stream, where + _BLOCK_BYTES)


def unpack(name: str, stream: IO[bytes]) -> Project | Failure:
    """Return the files of one paper, or why there are none (`pdf_only`, `bad_archive`, `too_long`, ...)."""
    try:
        head = stream.read(_BLOCK_BYTES)
        whole: io.BufferedIOBase = _Joined(head, stream, MAX_PAPER_BYTES)
        if head.startswith(b"\x1f\x8b"):
            whole = io.BufferedReader(_Gunzip(whole))
            head = whole.peek(_BLOCK_BYTES)[:_BLOCK_BYTES]
        if head.startswith(b"%PDF"):
            return Failure("pdf_only")
        if head.startswith(b"%!"):
            return Failure("postscript_only")
        if _is_tar(head):
            return _unpack_tar(whole)
        return _single(name, whole)
    except _Bomb as problem:
        return Failure("archive_bomb", str(problem))
    except _UNREADABLE as problem:
        return Failure("bad_archive", f"{type(problem).__name__}: {problem}")


def _members(name: str, stream: IO[bytes]) -> Iterator[tuple[str, IO[bytes]] | BadRecord]:
    with tarfile.open(fileobj=stream, mode="r:", tarinfo=_Header) as archive:
        offset = -1
        while (member := archive.next()) is not None:
            if member.offset <= offset:
                raise tarfile.ReadError("headers that lead back")
            offset = member.offset
            archive.members.clear()  # type: ignore[attr-defined]  # else the headers of all members stay
            if member.isdir():
                continue
            if not _is_plain(member):
                yield BadRecord(f"{name}#{member.name[:200]}", "unsafe_member", _kind(member))
                continue
            content = archive.extractfile(member)
            if content is not None:
                yield member.name, content
        # tarfile ends without a word where a header is damaged.
        stream.seek(archive.offset)
        if stream.read(_BLOCK_BYTES) != bytes(_BLOCK_BYTES):
            raise tarfile.ReadError("a damaged header, or no end of the archive")


def _next_header(stream: IO[bytes], start: int) -> int | None:
    """Return the place of the next block, from `start` on, that is the header of a member."""
    stream.seek(start)
    while len(block := stream.read(_BLOCK_BYTES)) == _BLOCK_BYTES:
        if block[257:262] == b"ustar" and _is_tar(block):
            return start
        start += _BLOCK_BYTES
    return None


def _is_plain(member: tarfile.TarInfo) -> bool:
    return is_inside(member.name) and member.isreg() and not member.issparse()


def _kind(member: tarfile.TarInfo) -> str:
    if member.islnk() or member.issym():
        return "a link"
    return "a name that leads out of the archive" if member.isreg() else "no regular file"


def _is_tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _unpack_tar(stream: IO[bytes] | io.BufferedIOBase) -> Project | Failure:
    project = Project()
    tex_bytes = 0
    with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|", tarinfo=_Header) as archive:
        for count, member in enumerate(archive):
            if count >= MAX_MEMBERS:
                return Failure("too_many_members", f"more than {MAX_MEMBERS:,}")
            if member.isdir():
                continue
            name = member.name.removeprefix("./")
            if not _is_plain(member):
                project.refused.append(f"{name[:200]} ({_kind(member)})")
            elif name.lower().endswith(_INPUT_SUFFIXES) or name == "00README.XXX":
                tex_bytes += member.size
                if tex_bytes > MAX_TEX_BYTES:
                    return Failure("too_long", f"more than {MAX_TEX_BYTES:,} bytes of TeX")
                content = archive.extractfile(member)
                project.files[name] = b"" if content is None else content.read()
    return project


def _single(name: str, stream: io.BufferedIOBase) -> Project | Failure:
    data = stream.read(MAX_TEX_BYTES + 1)
    if len(data) > MAX_TEX_BYTES:
        return Failure("too_long", f"more than {MAX_TEX_BYTES:,} bytes of TeX")
    plain = PurePosixPath(name.removesuffix(".gz")).name
    return Project({plain if plain.lower().endswith(TEX_SUFFIXES) else f"{plain}.tex": data})


class _Bomb(Exception):
    """An archive that grows too much."""


class _Header(tarfile.TarInfo):
    """A header that may not promise a name, or a table of attributes, by the gigabyte."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size < 0 or (self.type in _EXTENSIONS and self.size > _MAX_EXTENSION_BYTES):
            raise tarfile.ReadError(f"a header promises {self.size:,} bytes")
        return super()._proc_member(archive)  # type: ignore[misc, no-any-return]


class _Joined(io.BufferedIOBase):
    """What has been read of a stream, and the rest, up to a number of bytes."""

    def __init__(self, head: bytes, rest: IO[bytes], max_bytes: int) -> None:
        self._head = head
        self._rest = rest
        self._left_bytes = max_bytes - len(head)

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = self._left_bytes + len(self._head) if size is None or size < 0 else size
        data, self._head = self._head[:wanted], self._head[wanted:]
        if len(data) < wanted:
            more = self._rest.read(min(wanted - len(data), _MAX_READ_BYTES))
            self._left_bytes -= len(more)
            if self._left_bytes < 0:
                raise _Bomb(f"more than {MAX_PAPER_BYTES:,} bytes")
            data += more
        return data


class _Gunzip(io.RawIOBase):
    """A gzip stream decompressed in small pieces, with an end to what it may become."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream
        self._inflate = zlib.decompressobj(wbits=31)
        self._in_bytes = 0
        self._out_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object, /) -> int:
        view = memoryview(cast(bytearray, buffer))
        data = b""
        while not data and not self._inflate.eof:
            packed = self._inflate.unconsumed_tail
            if not packed:
                packed = self._stream.read(1 << 14)
                self._in_bytes += len(packed)
                if not packed:
                    raise EOFError("the compressed file was cut short")
            data = self._inflate.decompress(packed, len(view))
        self._out_bytes += len(data)
        allowed = max(HARMLESS_BYTES, MAX_RATIO * self._in_bytes)
        if self._out_bytes > min(allowed, MAX_PAPER_BYTES):
            raise _Bomb(f"{self._in_bytes:,} bytes became more than {self._out_bytes:,}")
        view[: len(data)] = data
        return len(data)
