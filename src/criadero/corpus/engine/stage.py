"""What a recipe is made of: `Read`, then any number of `Each` and `Exchange`.

    (Read(splits, make_reader), Each("clean", make_cleaner), Exchange("line_dedup", make_dedup), ...)

A stage names a module-level function `make` and its settings instead of holding a function, so that a task
can be sent to another process, loads its models once there, and has a key: the hash of its inputs, its
settings and the code. `criadero.corpus.engine.run` runs a recipe over all splits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import pyarrow as pa

from criadero.corpus.document import BadRecord, Document, Drop

Settings: TypeAlias = Mapping[str, Any]
"""Keyword arguments of a `make` function; values are JSON."""

DocumentFunction: TypeAlias = Callable[[Document], Document | Drop]
Decision: TypeAlias = Mapping[str, Any]
"""One row that `reduce` returned for a document, without `split` and `row`."""


@dataclass(frozen=True, slots=True)
class Split:
    """A part of the raw input that one task reads.

    Attributes:
        name: unique within the source and the same at every run, such as `dump.xml.bz2@600`.
        path: a local file or folder, or a URL.
        start: first byte, stream or part, as the reader means it.
        stop: end of the range, None for all that follows.
        parts: other values the reader needs, as JSON.
        files: what it reads in the folder `path`; none means all that is in there.
    """

    name: str
    path: str
    start: int = 0
    stop: int | None = None
    parts: Settings = field(default_factory=dict)
    files: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """The paths whose content decides what the split holds."""
        return self.files or (self.path,)


Reader: TypeAlias = Callable[[Split], Iterator[Document | BadRecord]]
"""Yields a split's documents in the same order at every run, in bounded memory."""


@dataclass(frozen=True, slots=True)
class Read:
    """The first stage: how the raw input is cut and read.

    Attributes:
        splits: in the order the documents have in the corpus.
        make: returns the reader, called with `settings` once in each worker.
    """

    splits: tuple[Split, ...]
    make: Callable[..., Reader]
    settings: Settings = field(default_factory=dict)
    name: str = "read"


@dataclass(frozen=True, slots=True)
class Each:
    """A pure function over single documents.

    Attributes:
        name: of the stage in ledger and funnel, unique in the recipe.
        make: returns the function, called with `settings` once in each worker (loads models there).
        files: models and tables it depends on; their sha256 is part of the key.
        score: metadata key whose number the ledger shows as the score of kept documents.
    """

    name: str
    make: Callable[..., DocumentFunction]
    settings: Settings = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    score: str | None = None


class CrossDocument(Protocol):
    """A decision about documents that depends on other documents of the source.

    `emit` runs where the document is; all records with one `key` then meet in one place, where the SQL of
    `reduce` makes decisions; `apply` runs again where the document is.
    """

    @property
    def schema(self) -> pa.Schema:
        """Columns of the records; the first is `key`, uint64, best a hash."""

    def emit(self, document: Document) -> Mapping[str, Sequence[Any]]:
        """Return this document's records by column (lists or arrays of one length, may be empty)."""

    @property
    def reduce(self) -> str:
        """A SELECT for DuckDB over the view `records`, run once per range of keys.

        `records` has the columns of `schema` and `split` (uint32), `row` (uint32): the document's place.
        (split, row) is the order of the documents. Returns `split`, `row` and any further columns; must not
        depend on the order of the input or on how keys are cut into ranges.
        """

    def combine(self, decisions: pa.Table, documents: Documents) -> pa.Table:  # noqa: ARG002
        """Turn what all `reduce` calls returned, sorted by (split, row), into the final decisions.

        Most steps need none: they inherit this one, and then no task ever holds all decisions at once.
        """
        return decisions

    def apply(self, document: Document, decisions: Sequence[Decision]) -> Document | Drop:
        """Decide with the rows that were returned for this document (often none)."""


class Documents(Protocol):
    """Random access to the documents an exchange is about, for `combine`."""

    def read(self, places: Iterable[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], Document]]:
        """Yield ((split, row), document) for the places asked for, in order of place."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A cross-document step: records are emitted, exchanged by key, reduced and applied.

    Attributes:
        name: of the stage in ledger and funnel, unique in the recipe.
        make: returns the `CrossDocument`, called with `settings`.
        files: as in `Each`.
    """

    name: str
    make: Callable[..., CrossDocument]
    settings: Settings = field(default_factory=dict)
    files: tuple[Path, ...] = ()


Stage: TypeAlias = Read | Each | Exchange
Recipe: TypeAlias = tuple[Stage, ...]
