"""Document ids: which split a document belongs to, and whether an id came before.

Both follow from one keyed hash of (seed, document id), so neither depends on the order of the documents.
"""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import numpy.typing as npt

from criadero.errors import DataError

_SEEN_AT_ONCE = 1 << 18


def is_held_out(document_id: str, *, seed: int, fraction: float) -> bool:
    """Tell whether a document belongs to the held-out split: a pure function of (seed, id)."""
    return drawn(digest_of(document_id, seed), fraction)


def drawn(digest: bytes, fraction: float) -> bool:
    """Tell whether a digest falls into the first `fraction` of all digests."""
    return int.from_bytes(digest[:8], "little") < fraction * 2.0**64


def digest_of(document_id: str, seed: int) -> bytes:
    """Return 16 bytes that depend on the id and the seed alone."""
    return hashlib.blake2b(document_id.encode(), digest_size=16, key=seed.to_bytes(8, "little")).digest()


class SeenIds:
    """Finds an id that comes twice; keeps a sorted 128-bit hash of each, 16 bytes a document."""

    def __init__(self) -> None:
        self._known: npt.NDArray[np.bytes_] = np.empty(0, dtype="S16")
        self._new: dict[bytes, str] = {}

    def add(self, document_id: str, digest: bytes) -> None:
        """Take note of an id; a repetition is found here or at the next `flush`.

        Raises:
            DataError: naming an id that came twice.
        """
        if digest in self._new:
            raise _twice(document_id)
        self._new[digest] = document_id
        if len(self._new) >= _SEEN_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Compare the newest ids with all earlier ones.

        Raises:
            DataError: naming an id that came twice.
        """
        new = np.array(list(self._new), dtype="S16")
        if new.size and self._known.size:
            places = np.searchsorted(self._known, new).clip(max=self._known.size - 1)
            known = self._known[places] == new
            if known.any():
                raise _twice(next(itertools.compress(self._new.values(), known.tolist())))
        self._known = np.sort(np.concatenate([self._known, new]), kind="stable")
        self._new = {}


def _twice(document_id: str) -> DataError:
    return DataError(
        f"two documents have the id {document_id!r}", hint="ids must be unique within one build: rename one"
    )
