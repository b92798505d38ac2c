"""Dump files: how one is cut into parts that can be read apart, and the pages of a part.

Entry points: `site_of` for what a dump says of itself, `plan` for its parts and `read_part` for the pages of
one. A multistream dump is many bz2 streams of about 100 pages one after the other, at places that its index
lists and that the file itself shows; a part is a run of streams. Any other bz2 must be decompressed from the
start, so there each part goes through the whole file and parses every N-th page.
"""

from __future__ import annotations

import bz2
import codecs
import html
import itertools
import mmap
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from criadero.corpus.sources.wikipedia.pages import OPEN, CutPage, cut_pages
from criadero.errors import DataError

# Enough work for a task at some megabytes of wikitext per second, and little to do again when it is lost.
PART_BYTES = 1 << 23
# Every part of a plain dump decompresses all of it, at ten times the speed of cleaning.
MAX_PLAIN_PARTS = 16
_CHUNK_BYTES = 1 << 18
_HEAD_BYTES = 1 << 20
_STREAM_START = re.compile(rb"BZh[1-9]1AY&SY")
_DBNAME = re.compile(r"<dbname>\s*([\w-]+?)(?:wiki)?\s*</dbname>")
_LANGUAGE = re.compile(r"<mediawiki\b[^>]*\bxml:lang=\"([\w-]+)\"")
_NAMESPACE = re.compile(r"<namespace key=\"(-?\d+)\"[^>]*>([^<]*)</namespace>")


@dataclass(frozen=True)
class Site:
    """What the head of a dump says: language code (empty if it does not) and namespaces by number."""

    language: str
    namespaces: dict[int, str]


@dataclass(frozen=True)
class Part:
    """Bytes [start, stop) of a multistream dump, or pages `page % pages_modulo == page` of a plain one."""

    start: int = 0
    stop: int | None = None
    page: int = 0
    pages_modulo: int = 1


@dataclass(frozen=True)
class Damage:
    """A place behind which nothing could be read, up to the next stream or the end."""

    where: str
    reason: str
    detail: str


def site_of(path: Path) -> Site:
    """Read what stands before the first page.

    Raises:
        DataError: the file cannot be read or does not begin like a dump.
    """
    head = b""
    try:
        with path.open("rb") as stream:
            for chunk in _as_utf8(_decompressed(stream, path)):
                head += chunk
                if OPEN in head or len(head) > _HEAD_BYTES:
                    break
    except (OSError, EOFError) as problem:
        if not head:
            raise DataError(f"`{path}` cannot be read: {problem}") from None
    text = head.partition(OPEN)[0].decode(errors="replace")
    if "<mediawiki" not in text:
        raise DataError(f"`{path}` is no dump of a wiki: it does not begin with <mediawiki>")
    found = _DBNAME.search(text) or _LANGUAGE.search(text)
    names = {int(number): html.unescape(name) for number, name in _NAMESPACE.findall(text)}
    return Site(found[1].replace("_", "-").lower() if found else "", names)


def plan(path: Path) -> list[Part]:
    """Return the parts of a dump, the same at every call."""
    size_bytes = path.stat().st_size
    starts = stream_starts(path)
    if len(starts) > 1 and _begin_with_pages(path, starts[1:3]):
        cuts = [0]
        for start in starts[2:]:  # the first stream holds no pages
            if start - cuts[-1] >= PART_BYTES:
                cuts.append(start)
        return [Part(start=a, stop=b) for a, b in itertools.pairwise([*cuts, size_bytes])]
    count = max(1, min(MAX_PLAIN_PARTS, size_bytes // PART_BYTES))
    return [Part(page=page, pages_modulo=count) for page in range(count)]


def stream_starts(path: Path) -> list[int]:
    """Return where the bz2 streams of a file begin: from the index beside it, or from the file itself."""
    if path.suffix != ".bz2":
        return []
    index = path.with_name(path.name.replace("-multistream", "-multistream-index").replace(".xml", ".txt"))
    if index != path and index.is_file():
        with bz2.open(index) as lines:
            listed = {int(line.partition(b":")[0]) for line in lines if line[:1].isdigit()}
        return [0, *sorted(listed - {0})]
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return [match.start() for match in _STREAM_START.finditer(data)]


def read_part(path: Path, part: Part) -> Iterator[tuple[str, CutPage] | Damage]:
    """Yield the pages of a part, each with the name of its place, and what could not be read."""
    if part.stop is None:
        yield from _read_plain(path, part)
        return
    with path.open("rb") as stream:
        stream.seek(part.start)
        data = stream.read(part.stop - part.start)
    starts = [match.start() for match in _STREAM_START.finditer(data)]
    for start, stop in itertools.pairwise([*starts, len(data)]):
        where = f"{path.name}@{part.start + start}"
        yield from _pages(_bz2_chunks(iter([data[start:stop]])), where)


def _read_plain(path: Path, part: Part) -> Iterator[tuple[str, CutPage] | Damage]:
    with path.open("rb") as stream:
        for found in _pages(_as_utf8(_decompressed(stream, path)), path.name):
            # A fault of the file is reported once, by the first part.
            number = 0 if isinstance(found, Damage) else found[1].number
            if number % part.pages_modulo == part.page:
                yield found


def _pages(chunks: Iterable[bytes], where: str) -> Iterator[tuple[str, CutPage] | Damage]:
    faults: list[Damage] = []
    for page in cut_pages(_until_damage(chunks, where, faults)):
        yield f"{where}#{page.number}", page
    yield from faults


def _until_damage(chunks: Iterable[bytes], where: str, faults: list[Damage]) -> Iterator[bytes]:
    try:
        yield from chunks
    except EOFError as problem:
        faults.append(Damage(where, "truncated", str(problem)))
    except (OSError, UnicodeDecodeError) as problem:
        faults.append(Damage(where, "damaged", str(problem)))


def _begin_with_pages(path: Path, starts: Iterable[int]) -> bool:
    """Other tools cut bz2 into streams too, but anywhere; then no part could begin there."""
    for start in starts:
        with path.open("rb") as stream:
            stream.seek(start)
            try:
                head = next(iter(_bz2_chunks(iter([stream.read(_HEAD_BYTES)]))), b"").lstrip()
            except (OSError, EOFError):
                continue
        if not head.startswith((OPEN, b"</mediawiki>")):
            return False
    return True


def _decompressed(stream: IO[bytes], path: Path) -> Iterator[bytes]:
    blocks = iter(lambda: stream.read(_CHUNK_BYTES), b"")
    return _bz2_chunks(blocks) if path.suffix == ".bz2" else blocks


def _bz2_chunks(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Decompress streams one after the other in bounded memory.

    Raises:
        OSError: what is there is not bz2, or its checksum is wrong.
        EOFError: the last stream is cut short.
    """
    decompressor = bz2.BZ2Decompressor()
    for block in blocks:
        rest = block
        while rest or not (decompressor.eof or decompressor.needs_input):
            if decompressor.eof:
                decompressor = bz2.BZ2Decompressor()
            chunk = decompressor.decompress(rest, max_length=_CHUNK_BYTES)
            rest = decompressor.unused_data if decompressor.eof else b""
            if chunk:
                yield chunk
    if not decompressor.eof:
        raise EOFError("the file ends in the middle of a bz2 stream")


def _as_utf8(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Dumps are UTF-8; what an editor saved as UTF-16 begins with a mark that says so."""
    first = next(chunks, b"")
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        decode = codecs.getincrementaldecoder("utf-16")("replace").decode
        yield from (decode(chunk).encode() for chunk in itertools.chain([first], chunks))
    else:
        yield first
        yield from chunks
