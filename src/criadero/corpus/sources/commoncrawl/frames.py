"""Records of an archive as bytes, each of bounded size, with what could not be one.

Entry point: `frames(path)`. A record is its header up to the blank line and as many bytes as the header's
`Content-Length` says. What follows must be the two line ends of the format, a record, or the end of member or
file, otherwise the length is wrong and the record is given up; reading goes on at the next line that begins a
record. A record is handed out only when what follows was read without fault: a bad checksum takes it back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from criadero.corpus.sources.commoncrawl.members import RECORD_START, Chunk, Fault, chunks

MAX_RECORD_BYTES = 1 << 25
MAX_HEADER_BYTES = 1 << 16
_LENGTH = re.compile(rb"^Content-Length:[ \t]*(\d{1,18})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_LINE_ENDS = re.compile(rb"[\r\n]+")
_NEXT_RECORD = b"\n" + RECORD_START
_RECORD_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole record.

    Attributes:
        place: where it begins, `member` or `member+byte`: the offset of its member in the file, and of the
            record in the decompressed member if it is not the first thing there.
        data: header and content.
    """

    place: str
    data: bytes


@dataclass(frozen=True, slots=True)
class BadFrame:
    """A record that could not be read."""

    place: str
    reason: str
    detail: str


def frames(path: Path, *, max_record_bytes: int = MAX_RECORD_BYTES) -> Iterator[Frame | BadFrame]:
    """Yield the records of an archive in its order, and one `BadFrame` for each fault.

    Args:
        path: a file as `members.chunks` reads it.
        max_record_bytes: of one record; a longer one is a bad frame. Memory is a small multiple of it.
    """
    yield from _Framing(chunks(path), max_record_bytes).frames()


class _Framing:
    """Cuts a stream of chunks into records; holds the bytes from the record's start on."""

    def __init__(self, stream: Iterator[Chunk | Fault], max_record_bytes: int) -> None:
        self._stream = stream
        self._max_record_bytes = max_record_bytes
        self._buffer = bytearray()
        self._member = 0  # of the buffer's first byte
        self._last_member = -1  # of its last byte
        self._inner = 0  # its place in the member
        self._next: Chunk | Fault | None = next(stream, None)

    def frames(self) -> Iterator[Frame | BadFrame]:
        while self._begin_member():
            yield from self._member_frames()

    def _member_frames(self) -> Iterator[Frame | BadFrame]:
        """Yield the records up to the end of the member (of several, where records run across them)."""
        while self._skip_line_ends():
            found = self._record()
            if isinstance(found, BadFrame):
                yield found
                self._skip_to_record()
                continue
            closed = self._need(len(_RECORD_END)) and self._buffer.startswith(_RECORD_END)
            more = self._skip_line_ends()
            if not more and self._is_cut():
                break
            if more and not closed and not self._begins_record():
                yield BadFrame(found.place, "wrong_length", "other bytes follow where the record should end")
                self._skip_to_record()
                continue
            yield found
        if isinstance(self._next, Fault):
            yield BadFrame(str(self._next.offset), self._next.reason, self._next.detail)
            self._advance()
            self._buffer.clear()

    def _record(self) -> Frame | BadFrame:
        """Take one record from the buffer, or say why it cannot be taken; then the buffer keeps it."""
        place = self._place()
        if not self._begins_record():
            return BadFrame(place, "not_a_record", f"begins with {bytes(self._buffer[:16])!r}")
        end = self._header_end()
        if end is None:
            return self._bad(place, "bad_header", f"no blank line within {MAX_HEADER_BYTES:,} bytes")
        length = _LENGTH.search(self._buffer, 0, end)
        if length is None:
            return BadFrame(place, "bad_header", "no Content-Length")
        total = end + int(length[1])
        if total > self._max_record_bytes:
            return BadFrame(
                place, "record_too_large", f"{total:,} bytes; {self._max_record_bytes:,} are allowed"
            )
        if not self._need(total):
            return self._bad(
                place, "cut_record", f"{total:,} bytes announced, {len(self._buffer):,} are there"
            )
        frame = Frame(place, bytes(self._buffer[:total]))
        self._drop(total)
        return frame

    def _bad(self, place: str, reason: str, detail: str) -> BadFrame:
        """A record that ends early because of a fault of the stream is that one fault, not two."""
        fault = self._next
        if isinstance(fault, Fault) and self._is_cut():
            reason, detail = fault.reason, fault.detail
            self._advance()
            self._buffer.clear()
        return BadFrame(place, reason, detail)

    def _header_end(self) -> int | None:
        searched = 0
        while True:
            found = _BLANK_LINE.search(self._buffer, searched, MAX_HEADER_BYTES)
            if found is not None:
                return found.end()
            searched = max(len(self._buffer) - 3, 0)
            if len(self._buffer) >= MAX_HEADER_BYTES or not self._need(len(self._buffer) + 1):
                return None

    def _skip_line_ends(self) -> bool:
        """Drop line ends at the front; returns False at the end of the member."""
        while True:
            found = _LINE_ENDS.match(self._buffer)
            self._drop(found.end() if found else 0)
            if self._buffer:
                return True
            if not self._extend():
                return False

    def _skip_to_record(self) -> None:
        """Drop the bad record at the front up to the next line that begins one, or the member's end."""
        while True:
            found = self._buffer.find(_NEXT_RECORD)
            if found >= 0:
                self._drop(found + 1)
                return
            self._drop(max(len(self._buffer) - len(_NEXT_RECORD) + 1, 0))
            if not self._extend():
                break
        self._buffer.clear()
        if self._is_cut():  # part of the fault that was reported
            self._advance()

    def _is_cut(self) -> bool:
        """Whether the member that was read last does not end but breaks off."""
        return isinstance(self._next, Fault) and self._next.offset == self._last_member

    def _begins_record(self) -> bool:
        """Whether a record begins here, or as much of one as the end of the file left."""
        self._need(len(RECORD_START))
        return RECORD_START.startswith(bytes(self._buffer[: len(RECORD_START)]))

    def _need(self, count: int) -> bool:
        while len(self._buffer) < count:
            if not self._extend():
                return False
        return True

    def _extend(self) -> bool:
        """Add the next chunk to the buffer unless another member or a fault comes first."""
        chunk = self._next
        if not isinstance(chunk, Chunk):
            return False
        # Some tools compress without regard to records: then a member goes on where the last one stopped.
        if chunk.first and (not self._buffer or chunk.data.startswith(RECORD_START)):
            return False
        self._buffer += chunk.data
        self._last_member = chunk.member
        self._advance()
        return True

    def _begin_member(self) -> bool:
        """Start with the next member, or go on to a fault; returns False at the end."""
        if isinstance(self._next, Chunk):
            self._member, self._inner, self._last_member = self._next.member, 0, self._next.member
            self._buffer = bytearray(self._next.data)
            self._advance()
            return True
        return self._next is not None

    def _advance(self) -> None:
        self._next = next(self._stream, None)

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self._inner += count

    def _place(self) -> str:
        return f"{self._member}+{self._inner}" if self._inner else str(self._member)
