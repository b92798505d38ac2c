"""The document: one text with its identity, the unit that flows from raw inputs to token shards.

Readers in `criadero.corpus.sources` make documents, or say what they could not read (`BadRecord`). Cleaning
is pure functions `Document -> Document | Drop`. `criadero.shards.write.build` stores what is left; shards
keep the id of each document, so a training sequence can be walked back to the documents it came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

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

    def with_text(self, text: str) -> Document:
        """Return the same document with another text."""
        return replace(self, text=text)

    def with_metadata(self, **values: str) -> Document:
        """Return the same document with metadata added or replaced."""
        return replace(self, metadata={**self.metadata, **values})

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


@dataclass(frozen=True, slots=True)
class Drop:
    """The decision to leave a document out.

    Attributes:
        reason: a short name in snake_case, one of few per stage; what the funnel counts.
        score: the number the decision was made on, if there is one.
        detail: what else explains it, for people.
    """

    reason: str
    score: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record of the raw input that could not be made a document.

    Attributes:
        id: where it is, as `file@byte-offset` or as the record names itself.
        reason: a short name in snake_case, as in `Drop`.
        detail: what was found, for people.
    """

    id: str
    reason: str
    detail: str = ""
