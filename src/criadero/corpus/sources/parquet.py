"""Parquet files of documents, as `corpus build` writes them and as others publish them.

Columns: `text`, perhaps `id` and `source`, `metadata` as a map of strings, and any further columns of
strings, which become metadata too. Entry points: `read_parquet`, streamed by row group in batches, and
`row_groups` for cutting a file into splits. Where pyarrow is missing, an error says what to install.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from criadero.corpus.document import BadRecord, Document
from criadero.corpus.extra import require_extra
from criadero.corpus.sources.records import Place, decode, make_document

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

# Documents in memory at once; texts of a megabyte each are still fine.
_BATCH_ROWS = 256


def row_groups(path: Path) -> list[int]:
    """Return the uncompressed size of every row group in bytes; nothing for a file that is damaged."""
    faults = what_damage_raises()
    try:
        metadata = _open(path).metadata
    except faults:
        return []
    return [metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups)]


def read_parquet(
    path: Path, place: Place, *, start: int = 0, stop: int | None = None
) -> Iterator[Document | BadRecord]:
    """Yield the rows of row groups [`start`, `stop`); a row without an id is called by its number, from 1."""
    faults = what_damage_raises()
    try:
        file = _open(path)
    except faults as problem:
        yield _unreadable(place.name, "", problem)
        return
    if fault := _column_fault(file.schema_arrow, place):
        yield fault
        return
    columns = _useful_columns(file.schema_arrow)
    sizes = [file.metadata.row_group(n).num_rows for n in range(file.metadata.num_row_groups)]
    row = sum(sizes[:start])
    for group in range(start, len(sizes) if stop is None else stop):
        yield from _read_group(file, group, columns, place, row=row)
        row += sizes[group]


def _read_group(
    file: pq.ParquetFile, group: int, columns: list[str], place: Place, *, row: int
) -> Iterator[Document | BadRecord]:
    """Yield the rows of one row group, the first of which has number `row` + 1; damage costs what follows."""
    try:
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns):
            for record in records_of(batch):
                row += 1
                yield _document(record, place, f"{place.name}:{row}")
    except what_damage_raises() as problem:
        yield _unreadable(f"{place.name}:{row + 1}", f" in row group {group}", problem)


def _unreadable(identity: str, where: str, problem: Exception) -> BadRecord:
    """Name the damage; what the library says of it runs over several lines."""
    return BadRecord(identity, "unreadable", f"cannot be read{where}: {' '.join(str(problem).split())}")


def _open(path: Path) -> pq.ParquetFile:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path, page_checksum_verification=True)


def what_damage_raises() -> tuple[type[Exception], ...]:
    """Return what pyarrow raises on a damaged file; the first place that needs pyarrow."""
    with require_extra("reading a Parquet file"):
        import pyarrow as pa
    return (OSError, pa.ArrowException)


def _is_string(kind: pa.DataType) -> bool:
    import pyarrow.types as kinds

    return bool(kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind))


def _column_fault(schema: pa.Schema, place: Place) -> BadRecord | None:
    at = schema.get_field_index("text")
    if at >= 0 and _is_string(schema.field(at).type):
        return None
    found = ", ".join(f"{field.name} ({field.type})" for field in schema) or "none"
    return BadRecord(place.name, "no_text", f"expected a column `text` of strings, found: {found}")


def _useful_columns(schema: pa.Schema) -> list[str]:
    import pyarrow.types as kinds

    def is_metadata(kind: pa.DataType) -> bool:
        return kinds.is_map(kind) and _is_string(kind.key_type) and _is_string(kind.item_type)

    return [
        field.name
        for field in schema
        if _is_string(field.type)
        or (field.name == "id" and kinds.is_integer(field.type))
        or (field.name == "metadata" and is_metadata(field.type))
    ]


def records_of(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Yield rows; strings as bytes, because one that is not UTF-8 must not cost its neighbours."""
    import pyarrow as pa

    columns = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if _is_string(column.type):
            columns[name] = column.cast(pa.large_binary()).to_pylist()
        elif isinstance(column, pa.MapArray):
            columns[name] = _maps(column)
        else:
            columns[name] = column.to_pylist()
    for row in range(batch.num_rows):
        yield {name: values[row] for name, values in columns.items()}


def _maps(column: pa.MapArray) -> list[list[tuple[bytes, bytes]]]:
    import pyarrow as pa

    places = column.offsets.to_pylist()
    keys = column.keys.cast(pa.large_binary()).to_pylist()
    items = column.items.cast(pa.large_binary()).to_pylist()
    return [list(zip(keys[a:b], items[a:b], strict=True)) for a, b in pairwise(places)]


def _document(record: dict[str, Any], place: Place, identity: str) -> Document | BadRecord:
    """Decode a row's strings, fold `metadata` in and make the document."""
    if record["text"] is None:
        return BadRecord(identity, "no_text", "the text is null")
    pairs = [(name.encode(), value) for name, value in record.items() if not isinstance(value, list)]
    strings: dict[str, Any] = {}
    metadata = record.get("metadata")
    for key, value in (*(metadata if isinstance(metadata, list) else ()), *pairs):
        name = decode(key, identity, place.max_bytes)
        found = decode(value, identity, place.max_bytes) if isinstance(value, bytes) else value
        if isinstance(name, BadRecord):
            return name
        if isinstance(found, BadRecord):
            return found
        strings[name] = found
    return make_document(strings, place, identity)
