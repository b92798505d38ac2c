"""Stages that other processes can import: readers of made-up text, and documents that do harm."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from criadero.corpus.document import BadRecord, Document, Drop
from criadero.corpus.engine.stage import (
    CrossDocument,
    Decision,
    Documents,
    Each,
    Exchange,
    Read,
    Recipe,
    Split,
)

WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "seven", "wizards")


def text_of(number: int) -> str:
    """Lines of which many are shared between documents."""
    number %= 93
    generator = np.random.default_rng(number)
    picks = generator.integers(0, len(WORDS), (6, 3))
    return "\n".join(" ".join(WORDS[i] for i in line) for line in picks) + f"\nonly in {number}"


def make_reader(
    *,
    documents: int = 50,
    bad_every: int = 0,
    harm: str = "",
    at: int = -1,
    padding: int = 0,
    without: Sequence[str] = (),
):
    """Split `s3` has documents `s3:0` ...; `harm` happens to the reader before document `at` of `s1`."""

    def read(split: Split) -> Iterator[Document | BadRecord]:
        for number in range(documents):
            identity = f"{split.name}:{number}"
            if number == at and split.name == "s1":
                do_harm(harm)
            if bad_every and number % bad_every == bad_every - 1:
                yield BadRecord(f"{split.name}@{number}", "malformed", "made up")
            elif identity not in without:
                text = text_of(split.start * documents + number) + "x" * padding
                yield Document(identity, text, "made", {"n": str(number)})

    return read


def do_harm(harm: str) -> None:
    if harm == "kill":
        os.kill(os.getpid(), 9)
    elif harm == "hang":
        time.sleep(1000)
    elif harm == "raise":
        raise RuntimeError("made up")
    elif harm == "memory":
        hoard = []
        while True:
            hoard.append(b"x" * (1 << 20))


def make_harmful(*, harm: dict[str, str], seconds: float = 0.0):
    """Documents named in `harm` do what it says; all others get longer by one character."""

    def function(document: Document) -> Document | Drop:
        time.sleep(seconds)
        do_harm(harm.get(document.id, ""))
        return document.with_text(document.text + "!")

    return function


def make_missing():
    raise FileNotFoundError("no such model")


def make_identity():
    return lambda document: document


def make_short(*, reason: str = "short", least: int = 0):
    def function(document: Document) -> Document | Drop:
        score = float(len(document.text))
        if score < least:
            return Drop(reason, score=score)
        return document.with_metadata(length=str(score))

    return function


class LineDedup(CrossDocument):
    """Of lines that occur in several places, all but the first go; a document without a line is dropped."""

    schema = pa.schema([("key", pa.uint64()), ("line", pa.int32())])
    reduce = """
        SELECT split, row, list(line ORDER BY line) AS lines FROM (
            SELECT *, row_number() OVER (PARTITION BY key ORDER BY split, row, line) AS place FROM records
        ) WHERE place > 1 GROUP BY split, row
    """

    def emit(self, document: Document) -> dict[str, Sequence[Any]]:
        lines = document.text.split("\n")
        hashes = [int.from_bytes(hashlib.sha256(line.encode()).digest()[:8], "little") for line in lines]
        return {"key": np.array(hashes, np.uint64), "line": list(range(len(lines)))}

    def apply(self, document: Document, decisions: Sequence[Decision]) -> Document | Drop:
        gone = {line for decision in decisions for line in decision["lines"]}
        kept = [line for number, line in enumerate(document.text.split("\n")) if number not in gone]
        return document.with_text("\n".join(kept)) if kept else Drop("all_lines_known")


class ExactDedup:
    """Documents whose text occurred before are dropped, with the first one's id, which `combine` looks up."""

    schema = pa.schema([("key", pa.uint64())])
    reduce = """
        SELECT split, row, first(split) OVER same AS first_split, first(row) OVER same AS first_row
        FROM records WINDOW same AS (PARTITION BY key ORDER BY split, row)
    """

    def emit(self, document: Document) -> dict[str, Sequence[Any]]:
        return {"key": [int.from_bytes(hashlib.sha256(document.text.encode()).digest()[:8], "little")]}

    def combine(self, decisions: pa.Table, documents: Documents) -> pa.Table:
        rows = [
            r for r in decisions.to_pylist() if (r["split"], r["row"]) != (r["first_split"], r["first_row"])
        ]
        firsts = {(r["first_split"], r["first_row"]) for r in rows}
        ids = {place: document.id for place, document in documents.read(firsts)}
        columns = {
            "split": pa.array([r["split"] for r in rows], pa.uint32()),
            "row": pa.array([r["row"] for r in rows], pa.uint32()),
            "first": [ids[r["first_split"], r["first_row"]] for r in rows],
        }
        return pa.table(columns)

    def apply(self, document: Document, decisions: Sequence[Decision]) -> Document | Drop:
        return Drop("duplicate", detail=decisions[0]["first"]) if decisions else document


def splits(count: int, path: Path | str = "none") -> tuple[Split, ...]:
    return tuple(Split(f"s{number}", str(path), start=number) for number in range(count))


def recipe(
    *, count: int = 4, reader: dict[str, Any] | None = None, harm: dict[str, str] | None = None
) -> Recipe:
    """Reader, a function, two exchanges and a function between them."""
    return (
        Read(splits(count), make_reader, reader or {}),
        Each("harmful", make_harmful, {"harm": harm or {}}),
        Exchange("lines", LineDedup),
        Each("short", make_short, {"least": 20}, score="length"),
        Exchange("exact", ExactDedup),
    )
