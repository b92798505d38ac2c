"""Arrays larger than memory: columns that grow on disk, and buckets that sort by key piece by piece.

`Column` is one array in one file, appended in order and read by ranges. `Buckets` takes records in any order
and gives them back in pieces by ascending key, each piece small enough to sort in memory; with one piece
nothing touches the disk. All of training is built from these two.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

MAX_BUCKETS = 256
"""Files written in turn; a bucket grows beyond its share of memory only where more would be needed."""

_WINDOW_ROWS = 1 << 20


class Column:
    """An array on disk: written once from its first row to its last, then read by ranges."""

    def __init__(self, path: Path, dtype: DTypeLike) -> None:
        self.path = path
        self.dtype = np.dtype(dtype)
        self.rows = 0
        path.write_bytes(b"")

    def append(self, values: NDArray[Any]) -> None:
        """Add values at the end, converted to the column's type."""
        with self.path.open("ab") as stream:
            np.ascontiguousarray(values, self.dtype).tofile(stream)
        self.rows += len(values)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows start to stop - 1 in fresh memory."""
        offset = start * self.dtype.itemsize
        return np.fromfile(self.path, self.dtype, count=max(0, stop - start), offset=offset)

    def gather(self, places: NDArray[Any]) -> NDArray[Any]:
        """Return the rows at `places`, which ascend; memory is bounded however far apart they are."""
        values = np.empty(len(places), self.dtype)
        done = 0
        while done < len(places):
            first = int(places[done])
            end = int(np.searchsorted(places, first + max(_WINDOW_ROWS, len(places))))
            window = self.read(first, int(places[end - 1]) + 1)
            values[done:end] = window[places[done:end] - np.asarray(first, places.dtype)]
            done = end
        return values

    def sample(self, places: NDArray[Any]) -> NDArray[Any]:
        """Return the rows at a few places anywhere."""
        return np.array(np.memmap(self.path, self.dtype, mode="r")[places])

    def delete(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)


class Buckets:
    """Records that come in any order and leave by ascending key.

    Args:
        splitters: ascending keys; bucket b holds the records with splitters[b-1] <= key < splitters[b].
        dtype: of one record.
    """

    def __init__(self, folder: Path, splitters: NDArray[np.uint64], dtype: DTypeLike) -> None:
        self._splitters = splitters
        self._dtype = np.dtype(dtype)
        self._blocks: list[NDArray[Any]] = []
        names = range(len(splitters) + 1) if len(splitters) else ()
        self._paths = [folder / f"bucket-{id(self):x}-{name}" for name in names]

    def add(self, keys: NDArray[np.uint64], records: NDArray[Any]) -> None:
        """Put each record into the bucket of its key."""
        if not self._paths:
            self._blocks.append(records)
            return
        bucket = np.searchsorted(self._splitters, keys, side="right").astype(np.uint16)
        order = np.argsort(bucket, kind="stable")
        records = records[order]
        bounds = np.searchsorted(bucket[order], np.arange(len(self._paths) + 1))
        for path, start, stop in zip(self._paths, bounds[:-1], bounds[1:], strict=True):
            with path.open("ab") as stream:
                records[start:stop].tofile(stream)

    def drain(self) -> Iterator[NDArray[Any]]:
        """Yield the records of each bucket, buckets by ascending key, and remove them."""
        if not self._paths:
            blocks, self._blocks = self._blocks, []
            yield np.concatenate(blocks) if blocks else np.empty(0, self._dtype)
            return
        for path in self._paths:
            records = np.fromfile(path, self._dtype) if path.exists() else np.empty(0, self._dtype)
            path.unlink(missing_ok=True)
            yield records


def quantiles(sample: NDArray[np.uint64], pieces: int) -> NDArray[np.uint64]:
    """Return the keys that cut what `sample` was drawn from into about equal pieces."""
    if pieces < 2 or not len(sample):
        return np.empty(0, np.uint64)
    ordered = np.sort(sample)
    return np.unique(ordered[np.arange(1, pieces) * len(ordered) // pieces])


def blocks(rows: int, block_rows: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of consecutive blocks."""
    for start in range(0, rows, block_rows):
        yield start, min(rows, start + block_rows)
