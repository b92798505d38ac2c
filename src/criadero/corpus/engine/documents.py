"""Documents in Parquet: between the segments of a recipe and as the finished corpus.

`DocumentWriter` writes row groups of bounded size, `read_documents` streams them back one group at a time,
`DocumentFiles` finds single documents again by their place.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from criadero.corpus.document import Document

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("source", pa.string()),
        ("metadata", pa.map_(pa.string(), pa.string())),
    ]
)
_GROUP_BYTES = 8 << 20
_GROUP_DOCUMENTS = 8192
# Between segments speed counts, in the corpus size.
INTERMEDIATE, FINAL = 1, 2


class DocumentWriter:
    """Writes documents to one file in row groups; what a group holds depends on the documents alone."""

    def __init__(self, path: Path, *, compression_level: int) -> None:
        self._writer = pq.ParquetWriter(
            path,
            SCHEMA,
            compression="zstd",
            compression_level=compression_level,
            use_dictionary=["source", "metadata.key_value.key", "metadata.key_value.value"],
            write_statistics=False,
            # Two of three flipped bits would pass for text otherwise.
            write_page_checksum=True,
        )
        self.count = 0
        self._clear()

    def _clear(self) -> None:
        self._ids: list[str] = []
        self._texts: list[bytes] = []
        self._sources: list[str] = []
        self._keys: list[str] = []
        self._values: list[str] = []
        self._offsets: list[int] = [0]
        self._bytes = 0

    def add(self, document: Document, text: bytes) -> bool:
        """Take one document and its text in UTF-8; say whether the group is full and should be flushed."""
        metadata = document.metadata
        self._ids.append(document.id)
        self._texts.append(text)
        self._sources.append(document.source)
        self._keys.extend(metadata.keys())
        self._values.extend(metadata.values())
        self._offsets.append(len(self._keys))
        self._bytes += len(text)
        self.count += 1
        return self._bytes >= _GROUP_BYTES or len(self._ids) >= _GROUP_DOCUMENTS

    def flush(self) -> None:
        """Write what was taken as a row group."""
        if self._ids:
            metadata = pa.MapArray.from_arrays(
                pa.array(self._offsets, pa.int32()),
                pa.array(self._keys, pa.string()),
                pa.array(self._values, pa.string()),
            )
            columns = [
                pa.array(self._ids, pa.string()),
                pa.array(self._texts, pa.string()),
                pa.array(self._sources, pa.string()),
                metadata,
            ]
            self._writer.write_table(pa.Table.from_arrays(columns, schema=SCHEMA))
            self._clear()

    def close(self) -> None:
        """Write the last group and the end of the file."""
        self.flush()
        self._writer.close()

    def abandon(self) -> None:
        """Leave the file unfinished after an error, without another one when it is closed later."""
        self._writer.is_open = False


def encoded(document: Document) -> bytes:
    """Return the text in UTF-8, after making sure that all of the document can be written.

    Raises:
        DataError: the text is not valid Unicode.
        UnicodeEncodeError, AttributeError: the id or metadata are not, or are no strings.
    """
    try:
        data = document.text.encode()
    except UnicodeEncodeError:
        document.text_bytes()
        raise
    for text in (document.id, document.source):
        if not text.isascii():
            text.encode()
    for key, value in document.metadata.items():
        if not (key.isascii() and value.isascii()):
            (key + value).encode()
    return data


def read_documents(path: Path) -> Iterator[Document]:
    """Yield the documents of a file, holding one row group at a time."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for group in range(file.num_row_groups):
            yield from _documents(file.read_row_group(group))


def _documents(table: pa.Table) -> Iterator[Document]:
    ids, texts, sources = (table.column(name).to_pylist() for name in ("id", "text", "source"))
    metadata = table.column("metadata").combine_chunks()
    keys, values = metadata.keys.to_pylist(), metadata.items.to_pylist()
    offsets = metadata.offsets.to_pylist()
    first = offsets[0] if offsets else 0
    for row, (identity, text, source) in enumerate(zip(ids, texts, sources, strict=True)):
        start, stop = offsets[row] - first, offsets[row + 1] - first
        yield Document(identity, text, source, dict(zip(keys[start:stop], values[start:stop], strict=True)))


class DocumentFiles:
    """Random access to documents by (split, row), one file a split."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def read(self, places: Iterable[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], Document]]:
        """Yield ((split, row), document) in order of place, reading only the row groups that are needed."""
        for split, group in groupby(sorted(set(places)), key=lambda place: place[0]):
            with pq.ParquetFile(self._paths[split], page_checksum_verification=True) as file:
                yield from _read_rows(file, split, [row for _, row in group])


def _read_rows(
    file: pq.ParquetFile, split: int, rows: Sequence[int]
) -> Iterator[tuple[tuple[int, int], Document]]:
    sizes = (file.metadata.row_group(number).num_rows for number in range(file.num_row_groups))
    ends = list(accumulate(sizes))
    for group, wanted in groupby(rows, key=lambda row: bisect_right(ends, row)):
        here = list(wanted)
        start = ends[group - 1] if group else 0
        table = file.read_row_group(group).take([row - start for row in here])
        yield from zip(((split, row) for row in here), _documents(table), strict=True)
