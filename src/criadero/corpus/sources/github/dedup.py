"""One copy of each file, whatever its header, line ends and white space.

Entry point: `make_dedup`. Files are compared after cleaning, so that copies which differ only in their
licence header are found; of equal ones that of the first repository and path in lexical order stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from criadero.corpus.document import Document, Drop
from criadero.corpus.engine.stage import CrossDocument, Decision


class FileDedup(CrossDocument):
    """Keeps the first of equal files, by repository, path and place in the input."""

    schema = pa.schema(
        [
            ("key", pa.uint64()),
            ("rest", pa.uint64()),
            ("repo", pa.string()),
            ("path", pa.string()),
            ("id", pa.string()),
        ]
    )
    reduce = """
        SELECT split, row, first_value(id) OVER same AS kept FROM records
        WINDOW same AS (PARTITION BY key, rest ORDER BY repo, path, split, row)
        QUALIFY row_number() OVER same > 1
    """

    def emit(self, document: Document) -> Mapping[str, Sequence[Any]]:
        """Return one record: the hash of the words of the file, and what its copies are sorted by."""
        digest = hashlib.blake2b(" ".join(document.text.split()).encode(), digest_size=16).digest()
        return {
            "key": [int.from_bytes(digest[:8], "big")],
            "rest": [int.from_bytes(digest[8:], "big")],
            "repo": [document.metadata["repo"]],
            "path": [document.metadata["path"]],
            "id": [document.id],
        }

    def apply(self, document: Document, decisions: Sequence[Decision]) -> Document | Drop:
        """Drop a copy, with the one that stays as detail."""
        return Drop("duplicate_file", detail=decisions[0]["kept"]) if decisions else document


def make_dedup() -> FileDedup:
    """Return the step that keeps one copy of each file."""
    return FileDedup()
