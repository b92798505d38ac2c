"""One page for each address, and one page for each line: C4's two steps across documents.

Entry points: `make_url_dedup` and `make_line_dedup`. Neither depends on the order of the pages: of one
address the newest page stays, and a line stays in the page whose address has the smallest md5. Hashes decide
by their first 64 bits and then by the other 64; what is still equal is decided by place in the input.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from criadero.corpus.document import Document, Drop
from criadero.corpus.engine.stage import CrossDocument, Decision
from criadero.corpus.sources.c4 import sentences
from criadero.corpus.sources.c4.clean import MIN_SENTENCES


def md5_halves(text: str) -> tuple[int, int]:
    """Return the md5 of `text` as two numbers of 64 bits that sort as its hexadecimal form does."""
    digest = hashlib.md5(text.encode()).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")


class UrlDedup(CrossDocument):
    """Keeps the newest page of each normalised address; of equally new ones the smallest text hash."""

    schema = pa.schema(
        [
            ("key", pa.uint64()),
            ("rest", pa.uint64()),
            ("date", pa.string()),
            ("text", pa.uint64()),
        ]
    )
    reduce = """
        SELECT split, row FROM records
        QUALIFY row_number() OVER (PARTITION BY key, rest ORDER BY date DESC, text, split, row) > 1
    """

    def emit(self, document: Document) -> Mapping[str, Sequence[Any]]:
        """Return one record: the address and what decides between pages that share it."""
        key, rest = md5_halves(document.metadata["normalized_url"])
        text, _ = md5_halves(document.text)
        return {"key": [key], "rest": [rest], "date": [document.metadata["date"]], "text": [text]}

    def apply(self, document: Document, decisions: Sequence[Decision]) -> Document | Drop:
        """Drop a page that another one of its address was preferred to."""
        return Drop("duplicate_url") if decisions else document


def make_url_dedup() -> UrlDedup:
    """Return the step that keeps one page for each address."""
    return UrlDedup()


class LineDedup(CrossDocument):
    """Keeps each line, whatever its case, in one page and there once; pages need three sentences still."""

    schema = pa.schema(
        [
            ("key", pa.uint64()),
            ("rest", pa.uint64()),
            ("url", pa.uint64()),
            ("url_rest", pa.uint64()),
            ("line", pa.uint32()),
        ]
    )
    reduce = """
        SELECT split, row, line FROM records
        QUALIFY row_number() OVER (PARTITION BY key, rest ORDER BY url, url_rest, split, row) > 1
    """

    def emit(self, document: Document) -> Mapping[str, Sequence[Any]]:
        """Return one record for each different line: its hash, the hash of the address, its place."""
        first = _first_lines(document.text)
        hashes = [md5_halves(line) for line in first]
        url, url_rest = md5_halves(document.metadata["url"])
        return {
            "key": [key for key, _ in hashes],
            "rest": [rest for _, rest in hashes],
            "url": [url] * len(first),
            "url_rest": [url_rest] * len(first),
            "line": list(first.values()),
        }

    def apply(self, document: Document, decisions: Sequence[Decision]) -> Document | Drop:
        """Take lines out that stay elsewhere, and repetitions within the page.

        Drops `only_duplicate_lines`, and `too_few_sentences_left` with their number as score.
        """
        stays_elsewhere = {decision["line"] for decision in decisions}
        kept = set(_first_lines(document.text).values()) - stays_elsewhere
        lines = [line for number, line in enumerate(document.text.split("\n")) if number in kept]
        text = "\n".join(lines)
        if not text:
            return Drop("only_duplicate_lines")
        if not sentences.has(text, MIN_SENTENCES):
            return Drop("too_few_sentences_left", score=sentences.count(text))
        return document.with_text(text)


def _first_lines(text: str) -> dict[str, int]:
    """Return the different lines of a page, stripped and lowercased, with the place of the first of each."""
    first: dict[str, int] = {}
    for number, line in enumerate(text.split("\n")):
        first.setdefault(line.strip().lower(), number)
    return first


def make_line_dedup() -> LineDedup:
    """Return the step that keeps each line in one page."""
    return LineDedup()
