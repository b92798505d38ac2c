"""Records of text files, one by one: a whole `.txt` file, or the lines of a `.jsonl` file.

Entry points: `open_bytes` for a plain or compressed file, `read_txt` and `read_jsonl` for what is in it. They
yield a `Document`, or a `BadRecord` that names the place, and go on. `criadero.corpus.sources.text` reads
whole files with them, `criadero.corpus.sources.plain` ranges of big ones.
"""

from __future__ import annotations

import gzip
import io
import json
import lzma
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

from criadero import files
from criadero.corpus.document import BadRecord, Document
from criadero.corpus.extra import require_extra

# What a cut or damaged archive raises while it is read.
UNREADABLE = (OSError, EOFError, lzma.LZMAError, zlib.error)

Naming = Literal["line", "offset"]


@dataclass(frozen=True)
class Place:
    """How the records of one file are called.

    Attributes:
        name: of the file, the start of ids and of what names a bad record.
        source: the source its documents carry.
        max_bytes: longest record, as UTF-8.
        own_source: a record's own `source`, if it has one, stands instead.
        naming: records without an id are called by line, `name:7`, or by first byte, `name@4711`.
        keep_ids: whether a record's own `id` is kept.
    """

    name: str
    source: str
    max_bytes: int
    own_source: bool = False
    naming: Naming = "line"
    keep_ids: bool = True


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading, decompressed as its suffix says; one cut short raises at its end.

    Raises:
        DataError: `.zst` needs a library that is not installed.
    """
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if path.suffix == ".xz":
        return lzma.open(path, "rb")
    if path.suffix == ".zst":
        with require_extra(f"reading `{path.name}`"):
            import pyarrow as pa
        # zstandard's own stream reader ends silently where a file was cut; this one raises.
        return cast(IO[bytes], io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")))
    return path.open("rb")


def read_txt(stream: IO[bytes], place: Place) -> Document | BadRecord:
    """Return the whole stream as one document."""
    try:
        data = stream.read(place.max_bytes + 1)
    except UNREADABLE as problem:
        return BadRecord(place.name, "unreadable", f"cannot be read: {problem}")
    text = decode(data, place.name, place.max_bytes)
    return text if isinstance(text, BadRecord) else Document(place.name, text, place.source)


def read_jsonl(
    stream: IO[bytes], place: Place, *, start: int = 0, stop: int | None = None
) -> Iterator[Document | BadRecord]:
    """Yield the records of the lines that begin in [`start`, `stop`) of the stream, blank lines left out."""
    number, offset = 0, start
    try:
        first = _next_line(stream, start, stop) if start else 0
        for number, (offset, line) in enumerate(lines_of(stream, first, stop, place.max_bytes), start=1):
            if line.strip():
                mark = f":{number}" if place.naming == "line" else f"@{offset}"
                yield parse(line, place, place.name + mark)
    except UNREADABLE as problem:
        after = f"line {number:,}" if place.naming == "line" else f"byte {offset:,}"
        yield BadRecord(place.name, "unreadable", f"cannot be read after {after}: {problem}")


def _next_line(stream: IO[bytes], start: int, stop: int | None) -> int:
    """Go to the first line that begins at `start` or later; return where that is, or `stop`."""
    offset = start - 1
    stream.seek(offset)
    while stop is None or offset < stop:
        part = stream.readline(1 << 20 if stop is None else min(1 << 20, stop - offset))
        offset += len(part)
        if not part or part.endswith(b"\n"):
            break
    return offset


def lines_of(stream: IO[bytes], offset: int, stop: int | None, max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yield place and content of lines; of one over the cap only the start, long enough to be refused."""
    while (stop is None or offset < stop) and (line := stream.readline(max_bytes + 1)):
        yield offset, line
        offset += len(line)
        too_long = len(line) > max_bytes
        while too_long and not line.endswith(b"\n") and (stop is None or offset < stop):
            line = stream.readline(1 << 20)
            offset += len(line)
            too_long = bool(line)


def parse(line: bytes, place: Place, identity: str) -> Document | BadRecord:
    """Read one JSON object with `text` and perhaps `id`, `source` and further strings."""
    decoded = decode(line, identity, place.max_bytes)
    if isinstance(decoded, BadRecord):
        return decoded
    try:
        record = json.loads(decoded)
    except (ValueError, RecursionError) as problem:
        return BadRecord(identity, "not_json", f"not JSON: {problem}")
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        return BadRecord(identity, "no_text", "expected a JSON object with a string `text`")
    return make_document(record, place, identity)


def make_document(record: dict[str, Any], place: Place, identity: str) -> Document | BadRecord:
    """Turn a record with a string `text` into a document; its other strings become metadata."""
    if place.keep_ids and record.get("id") is not None:
        own = record["id"]
        if isinstance(own, bool) or not isinstance(own, str | int) or own == "":
            return BadRecord(identity, "bad_id", f"`id` is {own!r}, expected a string or a whole number")
        identity, where = str(own), identity
    else:
        where = identity
    strings = {key: value for key, value in record.items() if isinstance(value, str)}
    source = strings.get("source", place.source) if place.own_source else place.source
    metadata = {key: value for key, value in strings.items() if key not in {"id", "text", "source"}}
    fault = _lone_surrogate(where, record["text"], identity, source, *metadata, *metadata.values())
    return fault or Document(identity, record["text"], source, metadata)


def decode(data: bytes, where: str, max_bytes: int) -> str | BadRecord:
    """Return the bytes as text, if they are UTF-8 and not too many."""
    if len(data) > max_bytes:
        return BadRecord(
            where, "too_long", f"longer than the {files.format_bytes(max_bytes)} a record may have"
        )
    try:
        return data.decode()
    except UnicodeDecodeError as problem:
        detail = f"not UTF-8 at byte {problem.start:,}: {problem.reason}"
        return BadRecord(where, "invalid_utf8", detail)


def _lone_surrogate(where: str, *texts: str) -> BadRecord | None:
    """JSON can spell half a surrogate pair; UTF-8 and the tokenizer cannot."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as problem:
            code = ord(text[problem.start])
            detail = f"lone surrogate U+{code:04X} at character {problem.start:,}"
            return BadRecord(where, "lone_surrogate", detail)
    return None
