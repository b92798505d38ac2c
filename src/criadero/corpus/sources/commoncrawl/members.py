"""Bytes of an archive, decompressed member by member, with every fault at its byte offset.

Entry point: `chunks(path)`. Crawl archives are compressed one record a member (gzip) or frame (zstd), so a
damaged member costs only itself: reading goes on at the next one that decompresses to a record. Archives
that are not compressed are one member. First step of the walk: members -> frames -> warc -> documents.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import zstandard

GZIP_MAGIC = b"\x1f\x8b\x08"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ZSTD_SKIPPABLE = tuple(bytes([0x50 + i, 0x2A, 0x4D, 0x18]) for i in range(16))
RECORD_START = b"WARC/"
# A member may hold a whole archive, so its size alone is no fault; with a ratio no text reaches it is a bomb.
BOMB_BYTES = 64 << 20
BOMB_RATIO = 200
_READ_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 18
# zstd cannot be told when to stop; 2 KiB of input make at most 64 MiB of output.
_ZSTD_READ_BYTES = 1 << 11
_ZSTD_WINDOW_BYTES = 1 << 27
_PROBE_BYTES = 1 << 12


@dataclass(frozen=True, slots=True)
class Chunk:
    """Decompressed bytes, never empty.

    Attributes:
        member: byte offset in the file where the member they are of begins.
        first: whether they are the member's first.
    """

    member: int
    first: bool
    data: bytes


@dataclass(frozen=True, slots=True)
class Fault:
    """Bytes that could not be read; the member at `offset` is lost from there on."""

    offset: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class _Format:
    """A compression format: how members start and are decompressed."""

    name: str
    suffix: str
    magics: tuple[bytes, ...]
    start: Callable[[], Any]
    read_bytes: int
    bounded: bool
    errors: tuple[type[Exception], ...]

    def feed(self, decompressor: Any, data: bytes) -> bytes:
        found: bytes = (
            decompressor.decompress(data, _CHUNK_BYTES) if self.bounded else decompressor.decompress(data)
        )
        return found


_GZIP = _Format(
    "gzip", ".gz", (GZIP_MAGIC,), lambda: zlib.decompressobj(wbits=31), _READ_BYTES, True, (zlib.error,)
)
_ZSTD = _Format(
    "zstd",
    ".zst",
    (ZSTD_MAGIC, *ZSTD_SKIPPABLE),
    lambda: zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).decompressobj(),
    _ZSTD_READ_BYTES,
    False,
    (zstandard.ZstdError,),
)


def chunks(path: Path) -> Iterator[Chunk | Fault]:
    """Yield the decompressed bytes of a `.warc`, `.warc.gz` or `.warc.zst` file in bounded memory.

    The format is seen from the first bytes, and from the name if they are damaged. After a fault reading goes
    on at the next member that begins a record; a file that ends inside a member ends with a fault.

    Raises:
        OSError: the file cannot be opened or read.
    """
    with path.open("rb") as stream:
        start = stream.read(len(RECORD_START))
        stream.seek(0)
        form = next((f for f in (_GZIP, _ZSTD) if start.startswith(f.magics)), None)
        if form is None and start != RECORD_START:  # damaged right at the beginning
            form = next((f for f in (_GZIP, _ZSTD) if path.name.endswith(f.suffix)), None)
        if not start:
            yield Fault(0, "empty_file", "the file has no bytes")
        elif form is None:
            first = True
            while data := stream.read(_CHUNK_BYTES):
                yield Chunk(0, first, data)
                first = False
        else:
            yield from _Members(stream, form).chunks()


class _Members:
    """The members of a compressed file, one after the other."""

    def __init__(self, stream: IO[bytes], form: _Format) -> None:
        self._stream = stream
        self._form = form
        self._data = b""  # read from the file, not yet given to a decompressor
        self._offset = 0  # of `_data` in the file

    def chunks(self) -> Iterator[Chunk | Fault]:
        while self._skip_padding():
            member = self._offset
            if not self._data.startswith(self._form.magics):
                yield Fault(member, "not_compressed", f"no {self._form.name} member begins here")
                self._find_member(member + 1)
                continue
            try:
                fault = yield from self._member(member)
            except self._form.errors as problem:
                fault = Fault(member, "damaged_member", str(problem))
            if fault is not None:
                yield fault
                self._find_member(member + 1)

    def _member(self, member: int) -> Generator[Chunk, None, Fault | None]:
        """Yield one member's bytes; returns its fault, if any."""
        decompressor, out_bytes, first, held = self._form.start(), 0, True, b""
        while not decompressor.eof:
            pending = getattr(decompressor, "unconsumed_tail", b"")
            if not pending:
                pending = self._take()
            held += self._form.feed(decompressor, pending)
            if not pending and not held:
                return Fault(member, "truncated_file", "the file ends inside a compressed member")
            # The first bytes say whether a member begins a record, so they come together.
            if len(held) >= len(RECORD_START) or (held and decompressor.eof):
                out_bytes += len(held)
                yield Chunk(member, first, held)
                first, held = False, b""
            if out_bytes > BOMB_BYTES and out_bytes > BOMB_RATIO * (self._offset - member):
                return Fault(member, "compression_bomb", f"{out_bytes:,} bytes and more from one member")
            if not pending and not decompressor.eof:
                return Fault(member, "truncated_file", "the file ends inside a compressed member")
        self._give_back(decompressor.unused_data)
        return None

    def _take(self) -> bytes:
        data = self._data or self._stream.read(self._form.read_bytes)
        self._data = b""
        self._offset += len(data)
        return data

    def _give_back(self, data: bytes) -> None:
        self._data = data
        self._offset -= len(data)

    def _skip_padding(self) -> bool:
        """Skip zero bytes between members; returns False at the end of the file."""
        while True:
            if len(self._data) < 4:
                self._data += self._stream.read(self._form.read_bytes)
            stripped = self._data.lstrip(b"\0")
            self._offset += len(self._data) - len(stripped)
            self._data = stripped
            if stripped:
                return True
            more = self._stream.read(self._form.read_bytes)
            if not more:
                return False
            self._data = more

    def _find_member(self, offset: int) -> None:
        """Go to the next member from `offset` on that decompresses to the start of a record, or the end."""
        magic = self._form.magics[0]
        block_start, block = offset, b""
        while True:
            self._stream.seek(block_start + len(block))
            more = self._stream.read(_READ_BYTES)
            block += more
            position = block.find(magic)
            while position >= 0:
                if self._begins_record(block_start + position):
                    self._go_to(block_start + position)
                    return
                position = block.find(magic, position + 1)
            if not more:
                self._go_to(block_start + len(block))
                return
            kept = block[-(len(magic) - 1) :]
            block_start, block = block_start + len(block) - len(kept), kept

    def _begins_record(self, offset: int) -> bool:
        self._stream.seek(offset)
        probe = self._stream.read(min(_PROBE_BYTES, self._form.read_bytes))
        try:
            return self._form.feed(self._form.start(), probe).startswith(RECORD_START)
        except self._form.errors:
            return False

    def _go_to(self, offset: int) -> None:
        self._stream.seek(offset)
        self._offset, self._data = offset, b""
