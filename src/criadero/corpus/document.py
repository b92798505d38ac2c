"""The document: one text with its identity, the unit that flows from raw inputs to token shards.

Readers in `criadero.corpus.sources` make documents, `criadero.shards.write.build` stores them. Shards keep
the id of each, so a training sequence can be walked back to the documents it came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from criadero.errors import DataError


@dataclass(frozen=True, slots=True)
class Document:
    """One text.

    Attributes:
        id: unique within its source, not empty; the same input gives the same id.
        text: any characters that UTF-8 can hold (no lone surrogates); may be empty.
        source: the name of the source it came from.
        metadata: what else the input said about it, as strings.
    """

    id: str
    text: str
    source: str
    metadata: Mapping[str, str] = field(default_factory=dict)

    def text_bytes(self) -> int:
        """Return the length of the text in UTF-8, bytes.

        Raises:
            DataError: the text holds a lone surrogate, which no UTF-8 file can hold.
        """
        try:
            return len(self.text.encode())
        except UnicodeEncodeError as problem:
            raise DataError(
                f"document {self.id!r}: character {problem.start:,} is a lone surrogate "
                f"(U+{ord(self.text[problem.start]):04X}), which is not text"
            ) from None
