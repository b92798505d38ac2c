"""Plain text: `.txt` files (one document each), `.jsonl` files (one JSON object with `text` per line) and
`.parquet` files (one row each).

The first two may end in `.gz`, `.xz` or `.zst`; a folder means every such file below it, sorted by path, and
a name with `*`, `?` or `[` is a glob. Entry points: `read` for the documents, `describe` and
`estimated_text_bytes` for what a builder wants to know beforehand. A record that cannot be used is named with
file and line: an error, or skipped and counted when asked for.
"""

from __future__ import annotations

import glob
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from criadero import files
from criadero.corpus.document import BadRecord, Document
from criadero.corpus.sources.parquet import read_parquet
from criadero.corpus.sources.records import Place, open_bytes, read_jsonl, read_txt
from criadero.errors import DataError

logger = logging.getLogger("criadero")

MAX_RECORD_BYTES = 1 << 28
_COMPRESSED = ("", ".gz", ".xz", ".zst")
SUFFIXES = (*(f".{kind}{end}" for end in _COMPRESSED for kind in ("txt", "jsonl")), ".parquet")
# Text compresses about this much; only used to estimate disk space.
_EXPANSION = {".gz": 3, ".xz": 5, ".zst": 3, ".parquet": 3}

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
        place = Place(file.name, source or _plain_name(path), MAX_RECORD_BYTES, own_source=source is None)
        for record in read_file(file.path, place):
            if isinstance(record, BadRecord):
                policy.meet(file, record)
            else:
                yield record


def read_file(path: Path, place: Place) -> Iterator[Document | BadRecord]:
    """Yield what is in one readable file, named after `place`."""
    if path.suffix == ".parquet":
        yield from read_parquet(path, place)
        return
    try:
        stream = open_bytes(path)
    except OSError as problem:
        yield BadRecord(place.name, "unreadable", f"cannot be read: {problem}")
        return
    with stream:
        if ".jsonl" in path.suffixes:
            yield from read_jsonl(stream, place)
        else:
            yield read_txt(stream, place)


def text_files(path: Path) -> list[TextFile]:
    """Return the files that `read` reads, in its order.

    Raises:
        DataError: `path` is missing, has an unknown suffix, or is a folder or glob without readable files.
    """
    is_glob = glob.has_magic(str(path)) and not path.exists()
    if is_glob:
        matching = (Path(name) for name in glob.glob(str(path), recursive=True))
        found = [TextFile(f, f.name) for f in matching if f.is_file() and _is_text(f)]
    elif path.is_dir():
        root = path.resolve()
        inside = [f for f in path.rglob("*") if f.is_file() and _is_text(f) and not f.name.startswith(".")]
        found = [TextFile(f, f"{root.name}/{f.relative_to(path).as_posix()}") for f in inside]
    elif not path.exists():
        raise DataError(f"`{path}` does not exist")
    else:
        found = [TextFile(path, path.name)] if _is_text(path) else []
    if not found:
        fault = "matches" if is_glob else "has" if path.is_dir() else "is"
        where = " in it" if path.is_dir() else ""
        raise DataError(
            f"`{path}` {fault} no text to read{where}", hint=f"readable are {', '.join(SUFFIXES)}"
        )
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

    def meet(self, file: TextFile, bad: BadRecord) -> None:
        where = f"{file.path}{bad.id.removeprefix(file.name)}"
        if self.on_bad == "raise":
            raise DataError(f"{where}: {bad.detail}")
        self.skipped[file.name] += 1
        logger.warning("skipped: %s: %s", where, bad.detail)
