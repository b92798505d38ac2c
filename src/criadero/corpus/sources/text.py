"""Plain text: `.txt` files (one document each) and `.jsonl` files (one JSON object with `text` per line).

Either may end in `.gz` or `.xz`; a folder means every such file below it, sorted by path. Entry points:
`read` for the documents, `describe` and `estimated_text_bytes` for what a builder wants to know beforehand.
A record that cannot be used is named with file and line: an error, or skipped and counted when asked for.
"""

from __future__ import annotations

import gzip
import json
import logging
import lzma
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal, cast

from criadero import files
from criadero.corpus.document import Document
from criadero.errors import DataError

logger = logging.getLogger("criadero")

SUFFIXES = (".txt", ".jsonl", ".txt.gz", ".jsonl.gz", ".txt.xz", ".jsonl.xz")
MAX_RECORD_BYTES = 1 << 28
# Text compresses about this much; only used to estimate disk space.
_EXPANSION = {".gz": 3, ".xz": 5}

OnBad = Literal["raise", "skip"]


@dataclass(frozen=True)
class TextFile:
    """A file to read and the name its documents carry, which starts with the input's own name."""

    path: Path
    name: str


def read(
    path: Path, *, source: str | None = None, on_bad: OnBad = "raise", skipped: Counter[str] | None = None
) -> Iterator[Document]:
    """Yield the documents of a file or folder.

    A JSON record's `id` is kept; without one, and for `.txt`, the id is the file's name (and `:line`). String
    fields other than `text`, `id` and `source` become metadata.

    Args:
        path: a file, or a folder of which every readable file is taken, sorted by path.
        source: name of the source; default a record's own `source`, then the name of `path`.
        on_bad: what to do about bad UTF-8, bad JSON, a missing text, a lone surrogate, a cut archive.
        skipped: with `on_bad="skip"`, counts what was skipped by file name.

    Raises:
        DataError: nothing to read at `path`, or a bad record, named with file and line.
    """
    policy = _BadRecords(on_bad, Counter() if skipped is None else skipped)
    for file in text_files(path):
        if ".jsonl" in file.path.suffixes:
            yield from _read_jsonl(file, source, path, policy)
        else:
            yield from _read_txt(file, source or _plain_name(path), policy)


def text_files(path: Path) -> list[TextFile]:
    """Return the files that `read` reads, in its order.

    Raises:
        DataError: `path` is missing, has an unknown suffix, or is a folder without readable files.
    """
    if path.is_dir():
        root = path.resolve()
        inside = [f for f in path.rglob("*") if f.is_file() and _is_text(f) and not f.name.startswith(".")]
        found = [TextFile(f, f"{root.name}/{f.relative_to(path).as_posix()}") for f in inside]
    elif not path.exists():
        raise DataError(f"`{path}` does not exist")
    else:
        found = [TextFile(path, path.name)] if _is_text(path) else []
    if not found:
        fault = "has no text to read in it" if path.is_dir() else "is no text to read"
        raise DataError(f"`{path}` {fault}", hint=f"readable are {', '.join(SUFFIXES)}")
    return sorted(found, key=lambda file: file.name)


def describe(path: Path) -> list[dict[str, str | int]]:
    """Return name, size in bytes and sha256 of every file that `read` reads."""
    return [
        {"name": f.name, "size_bytes": f.path.stat().st_size, "sha256": files.sha256_file(f.path)}
        for f in text_files(path)
    ]


def estimated_text_bytes(path: Path) -> int:
    """Return about how many bytes of text `path` holds, from file sizes alone."""
    return sum(f.path.stat().st_size * _EXPANSION.get(f.path.suffix, 1) for f in text_files(path))


def _is_text(path: Path) -> bool:
    return path.name.endswith(SUFFIXES)


def _plain_name(path: Path) -> str:
    return path.resolve().name.split(".")[0]


@dataclass(frozen=True)
class _BadRecords:
    """The policy for records that cannot be used."""

    on_bad: OnBad
    skipped: Counter[str] = field(default_factory=Counter)

    def meet(self, file: TextFile, fault: DataError) -> None:
        if self.on_bad == "raise":
            raise fault
        self.skipped[file.name] += 1
        logger.warning("skipped: %s", fault.message)


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if path.suffix == ".xz":
        return lzma.open(path, "rb")
    return path.open("rb")


def _read_txt(file: TextFile, source: str, policy: _BadRecords) -> Iterator[Document]:
    try:
        with _open(file.path) as stream:
            data = stream.read(MAX_RECORD_BYTES + 1)
        document = Document(file.name, _decode(data, str(file.path)), source)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as problem:
        policy.meet(file, DataError(f"{file.path}: cannot be read: {problem}"))
    except DataError as fault:
        policy.meet(file, fault)
    else:
        yield document


def _read_jsonl(file: TextFile, source: str | None, root: Path, policy: _BadRecords) -> Iterator[Document]:
    number = 0
    try:
        with _open(file.path) as stream:
            for number, line in enumerate(_lines(stream), start=1):
                if not line.strip():
                    continue
                try:
                    document = _parse(line, file, number, source or _plain_name(root), own=source is None)
                except DataError as fault:
                    policy.meet(file, fault)
                else:
                    yield document
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as problem:
        policy.meet(file, DataError(f"{file.path}: cannot be read after line {number:,}: {problem}"))


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield lines; of a line over the cap only the start, still long enough to be refused."""
    while line := stream.readline(MAX_RECORD_BYTES + 1):
        rest = line
        while len(rest) > MAX_RECORD_BYTES and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_RECORD_BYTES + 1)
        yield line


def _parse(line: bytes, file: TextFile, number: int, source: str, *, own: bool) -> Document:
    where = f"{file.path}:{number}"
    try:
        record = json.loads(_decode(line, where))
    except (ValueError, RecursionError) as problem:
        raise DataError(f"{where}: not JSON: {problem}") from None
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise DataError(f"{where}: expected a JSON object with a string `text`")
    strings = {key: value for key, value in record.items() if isinstance(value, str)}
    identity = record.get("id", f"{file.name}:{number}")
    if isinstance(identity, bool) or not isinstance(identity, str | int) or identity == "":
        raise DataError(f"{where}: `id` is {identity!r}, expected a string or a whole number")
    text = strings.pop("text")
    source = strings.get("source", source) if own else source
    metadata = {key: value for key, value in strings.items() if key not in {"id", "source"}}
    _refuse_surrogates(where, text, str(identity), source)
    return Document(str(identity), text, source, metadata)


def _decode(data: bytes, where: str) -> str:
    if len(data) > MAX_RECORD_BYTES:
        raise DataError(f"{where}: longer than the {files.format_bytes(MAX_RECORD_BYTES)} a record may have")
    try:
        return data.decode()
    except UnicodeDecodeError as problem:
        raise DataError(f"{where}: not UTF-8 at byte {problem.start:,}: {problem.reason}") from None


def _refuse_surrogates(where: str, *texts: str) -> None:
    """JSON can spell half a surrogate pair; UTF-8 and the tokenizer cannot."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as problem:
            code = ord(text[problem.start])
            raise DataError(f"{where}: lone surrogate U+{code:04X} at character {problem.start:,}") from None
