"""Rows of files that BigQuery exported from `github_repos`, as JSON lines or Parquet.

Entry point: `read_export`. A row has `content`, `repo_name`, `path` and `license`, or
`sample_repo_name` and `sample_path` as in the tables of samples. Rows without text, which are binary files,
are bad records. An export of many files may have a path in two of them, once for each branch, so ids begin
with the file's name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from criadero.corpus.document import BadRecord, Document
from criadero.corpus.sources.github import licence
from criadero.corpus.sources.github.licence import Licence
from criadero.corpus.sources.github.repository import UNKNOWN, make_document
from criadero.corpus.sources.parquet import records_of, what_damage_raises
from criadero.corpus.sources.records import UNREADABLE, lines_of, open_bytes

SUFFIXES = (".json", ".json.gz", ".json.zst", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
# Files in those tables have at most a megabyte; JSON spells a byte with up to six.
MAX_LINE_BYTES = 1 << 23
_BATCH_ROWS = 64
_REPO = ("repo_name", "sample_repo_name")
_PATH = ("path", "sample_path")
_COLUMNS = ("content", "license", *_REPO, *_PATH)


def read_export(path: Path, name: str, *, source: str, max_file_bytes: int) -> Iterator[Document | BadRecord]:
    """Yield the rows of an export as documents called `name:repo:path`, in its order."""
    rows = _parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path)
    damage: tuple[type[Exception], ...] = (*UNREADABLE, *what_damage_raises())
    seen: set[str] = set()
    number = 0
    try:
        for number, row in enumerate(rows, start=1):
            document = _document(row, name, f"{name}:{number}", source, max_file_bytes)
            if isinstance(document, BadRecord):
                yield document
            elif document.id in seen:
                yield BadRecord(f"{name}:{number}", "duplicate_path", document.id[:300])
            else:
                seen.add(document.id)
                yield document
    except damage as problem:
        yield BadRecord(name, "unreadable", f"cannot be read after row {number:,}: {problem}"[:300])


def _json_rows(path: Path) -> Iterator[Any]:
    """Yield what each line holds, None for a line that is too long or no JSON."""
    with open_bytes(path) as stream:
        for _, line in lines_of(stream, 0, None, MAX_LINE_BYTES):
            try:
                yield None if len(line) > MAX_LINE_BYTES else json.loads(line)
            except (ValueError, RecursionError):
                yield None


def _parquet_rows(path: Path) -> Iterator[Any]:
    """Yield rows, without the strings that are not UTF-8."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path, page_checksum_verification=True)
    columns = [name for name in _COLUMNS if name in file.schema_arrow.names]
    for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
        for record in records_of(batch):
            yield {name: _text(value) for name, value in record.items()}


def _text(value: Any) -> str | None:
    try:
        return value.decode() if isinstance(value, bytes) else None
    except UnicodeDecodeError:
        return None


def _document(row: Any, name: str, place: str, source: str, max_file_bytes: int) -> Document | BadRecord:
    if not isinstance(row, Mapping):
        return BadRecord(place, "not_json", "no JSON object, or a line that is too long")
    repo = next((row[key] for key in _REPO if isinstance(row.get(key), str) and row[key]), None)
    path = next((row[key] for key in _PATH if isinstance(row.get(key), str) and row[key]), None)
    content = row.get("content")
    if repo is None or path is None:
        return BadRecord(place, "no_path", "no repository or no path")
    if not isinstance(content, str) or "\0" in content:
        return BadRecord(place, "not_text", f"{repo}:{path}"[:300])
    try:
        size_bytes = len(content.encode())
        f"{repo}{path}".encode()
    except UnicodeEncodeError:
        return BadRecord(place, "lone_surrogate", "half a surrogate pair")
    if size_bytes > max_file_bytes:
        return BadRecord(place, "too_large", f"{size_bytes:,} bytes, {max_file_bytes:,} allowed")
    declared = row.get("license")
    expression = licence.of_name(declared) if isinstance(declared, str) else None
    found = Licence(expression, "metadata") if expression else UNKNOWN
    return make_document(content, f"{name}:{repo}:{path}", repo=repo, path=path, source=source, licence=found)
