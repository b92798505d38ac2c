"""Rows of files that BigQuery exported from `github_repos`, as JSON lines or Parquet.

Entry point: `read_export`. A row has `content`, `repo_name`, `path` and `license`, or
`sample_repo_name` and `sample_path` as in the tables of samples. Rows without text, which are binary files,
are bad records.
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
from criadero.corpus.sources.records import UNREADABLE, open_bytes

SUFFIXES = (".json", ".json.gz", ".json.zst", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
# Files in those tables have at most a megabyte; JSON spells a byte with up to six.
MAX_LINE_BYTES = 1 << 23
_BATCH_ROWS = 64
_REPO = ("repo_name", "sample_repo_name")
_PATH = ("path", "sample_path")
_COLUMNS = ("content", "license", *_REPO, *_PATH)


def read_export(path: Path, name: str, *, source: str, max_file_bytes: int) -> Iterator[Document | BadRecord]:
    """Yield the rows of an export as documents called `repo:path`, in its order."""
    rows = _parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path)
    seen: set[str] = set()
    number = 0
    try:
        for number, row in enumerate(rows, start=1):
            document = _document(row, f"{name}:{number}", source, max_file_bytes)
            if isinstance(document, BadRecord):
                yield document
            elif document.id in seen:
                yield BadRecord(f"{name}:{number}", "duplicate_path", document.id[:300])
            else:
                seen.add(document.id)
                yield document
    except (*UNREADABLE, ValueError) as problem:
        yield BadRecord(name, "unreadable", f"cannot be read after row {number:,}: {problem}"[:300])


def _json_rows(path: Path) -> Iterator[Any]:
    """Yield what each line holds, None for a line that is too long or no JSON."""
    with open_bytes(path) as stream:
        while line := stream.readline(MAX_LINE_BYTES + 1):
            too_long = len(line) > MAX_LINE_BYTES
            while too_long and line and not line.endswith(b"\n"):
                line = stream.readline(1 << 20)
            try:
                yield None if too_long else json.loads(line)
            except (ValueError, RecursionError):
                yield None


def _parquet_rows(path: Path) -> Iterator[Any]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    columns = [name for name in _COLUMNS if name in file.schema_arrow.names]
    for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
        yield from batch.to_pylist()


def _document(row: Any, place: str, source: str, max_file_bytes: int) -> Document | BadRecord:
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
    return make_document(content, repo=repo, path=path, source=source, licence=found)
