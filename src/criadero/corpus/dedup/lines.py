"""Lines that many documents share (menus, notices) are removed from all of them: the dedup of CCNet.

Entry point: `stage(config)`. Lines are compared by the first 64 bits of the SHA-1 of their normalised form.
The exchange makes it exact over whole groups, dumps or all dumps, where CCNet itself holds the hashes of
about 3 % of a dump in memory. At 1e11 lines about 270 pairs of different lines share a hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from criadero.config import Config
from criadero.corpus.document import Document, Drop
from criadero.corpus.engine.stage import CrossDocument, Decision, Exchange
from criadero.corpus.text_normal import comparable_lines


class LineDedupConfig(Config):
    """Which copies of a line count as such, and which of them stay.

    Attributes:
        scope: `group:N` compares documents within N consecutive splits, as CCNet does with 50; `dump` within
            one crawl, by the documents' metadata `dump`; `all` everywhere.
        policy: `drop_all` removes a line that two documents have from both (CCNet); `keep_first` leaves it in
            the first.
    """

    # differs from paper: its CCNet holds the lines of 50 shards at a time, about 3 % of a dump.
    scope: str = Field(default="dump", pattern=r"^(group:\d{1,9}|dump|all)$")
    policy: Literal["drop_all", "keep_first"] = "drop_all"

    @field_validator("scope")
    @classmethod
    def _group_is_not_empty(cls, scope: str) -> str:
        if scope.startswith("group:") and int(scope.removeprefix("group:")) == 0:
            raise ValueError("a group has at least one split")
        return scope


def stage(config: LineDedupConfig | None = None) -> Exchange:
    """Return the step that removes repeated lines and drops documents of which nothing is left."""
    return Exchange("line_dedup", make, settings=(config or LineDedupConfig()).model_dump())


def make(**settings: Any) -> LineDedup:
    """Return the step."""
    return LineDedup(LineDedupConfig(**settings))


def line_hashes(text: str) -> list[int]:
    """Return one 64-bit hash for each line of `text` (little-endian, the first 8 bytes of a SHA-1)."""
    sha1 = hashlib.sha1
    digests = b"".join([sha1(line).digest()[:8] for line in comparable_lines(text)])
    hashes: list[int] = np.frombuffer(digests, dtype="<u8").tolist()
    return hashes


_BLANK = int.from_bytes(hashlib.sha1(b"").digest()[:8], "little")


class LineDedup(CrossDocument):
    """The cross-document step. A record is a line; a decision names a line that goes."""

    schema = pa.schema(
        [("key", pa.uint64()), ("line", pa.uint32()), ("dump", pa.uint64()), ("again", pa.bool_())]
    )

    def __init__(self, config: LineDedupConfig) -> None:
        self._config = config

    def emit(self, document: Document) -> Mapping[str, Sequence[Any]]:
        """Return a record a line. `again` marks lines that go in any case: blank, or seen in this document.

        A line that only repeats inside one document must not look like one that two documents share.
        """
        hashes = line_hashes(document.text)
        first: dict[int, int] = {}
        for number, key in enumerate(hashes):
            first.setdefault(key, number)
        first.pop(_BLANK, None)
        again = [first.get(key) != number for number, key in enumerate(hashes)]
        dump = _hash(document.metadata.get("dump", "")) if self._config.scope == "dump" else 0
        count = len(hashes)
        return {"key": hashes, "line": list(range(count)), "dump": [dump] * count, "again": again}

    @property
    def reduce(self) -> str:
        """Find the lines of more than one document."""
        scope = "dump"
        if self._config.scope.startswith("group:"):
            scope = f"split // {int(self._config.scope.removeprefix('group:'))}"
        others = "AND place != first" if self._config.policy == "keep_first" else ""
        return f"""
            WITH
            lines AS NOT MATERIALIZED (
                SELECT *, {scope} AS scope, (split::UBIGINT << 32) | row::UBIGINT AS place FROM records
            ),
            shared AS (
                SELECT key, scope, min(place) AS first FROM lines
                WHERE NOT again GROUP BY key, scope HAVING count(*) > 1
            )
            SELECT split, row, line FROM lines JOIN shared USING (key, scope) WHERE NOT again {others}
            UNION ALL SELECT split, row, line FROM records WHERE again
        """

    def apply(self, document: Document, decisions: Sequence[Decision]) -> Document | Drop:
        """Remove the lines named; drop the document if none is left."""
        if not decisions:
            return document
        gone = {decision["line"] for decision in decisions}
        lines = document.text.split("\n")
        kept = [line for number, line in enumerate(lines) if number not in gone]
        if not kept:
            return Drop("no_line_left", score=float(len(lines)))
        return document.with_text("\n".join(kept))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha1(text.encode()).digest()[:8], "little")
