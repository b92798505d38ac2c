"""Items of evaluation benchmarks, read from the files they are published in.

`Item` is one question, passage or problem as its authors published it, with the texts of it that a training
corpus must not hold. `READERS` turn a file into rows; the functions `*_texts` say which texts of a row count:
what the model would have to answer and the right answer, but never background that the benchmark itself took
from public text (BoolQ's passages are Wikipedia's), nor wrong answers. `benchmark_sets` is the table of both.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, TypeAlias

Row: TypeAlias = Mapping[str, Any]
RowReader: TypeAlias = Callable[[IO[bytes]], Iterator[Row]]
Texts: TypeAlias = Callable[[Row], list[str]]


@dataclass(frozen=True)
class Item:
    """One item of a benchmark.

    Attributes:
        id: unique in the benchmark: split, group if there is one, number.
        texts: what decontamination looks for.
        row: all that was published, by its published names.
    """

    id: str
    texts: tuple[str, ...]
    row: Row

    def as_json(self) -> dict[str, Any]:
        """Return the item as one line of a benchmark's file holds it."""
        return {"id": self.id, "texts": list(self.texts), "item": dict(self.row)}


def arrow_rows(stream: IO[bytes]) -> Iterator[Row]:
    """Read an Arrow stream."""
    import pyarrow.ipc

    with pyarrow.ipc.open_stream(stream) as opened:
        for batch in opened:
            yield from batch.to_pylist()


def request_rows(stream: IO[bytes]) -> Iterator[Row]:
    """Read the document of each distinct item out of gzipped evaluation requests, one line per choice."""
    seen = set()
    with gzip.open(stream) as lines:
        for number, line in enumerate(lines):
            document = json.loads(line)["doc"]
            key = document.get("id", document.get("task_id", document.get("index", number)))
            if key not in seen:
                seen.add(key)
                yield document


def jsonl_rows(stream: IO[bytes]) -> Iterator[Row]:
    """Read one JSON object per line."""
    yield from (json.loads(line) for line in stream if line.strip())


def jsonl_gz_rows(stream: IO[bytes]) -> Iterator[Row]:
    """Read one JSON object per line, gzipped."""
    with gzip.open(stream) as lines:
        yield from (json.loads(line) for line in lines if line.strip())


def csv_rows(stream: IO[bytes]) -> Iterator[Row]:
    """Read a table with a head line, separated by commas."""
    yield from csv.DictReader(io.TextIOWrapper(stream, "utf-8", newline=""))


def tsv_rows(stream: IO[bytes]) -> Iterator[Row]:
    """Read a table with a head line, separated by tabs."""
    yield from csv.DictReader(io.TextIOWrapper(stream, "utf-8", newline=""), delimiter="\t")


def line_rows(stream: IO[bytes]) -> Iterator[Row]:
    """Read one text per line."""
    yield from ({"text": line} for line in stream.read().decode().splitlines() if line.strip())


def fields(*names: str) -> Texts:
    """Return a function that takes these fields as they are."""
    return lambda row: [row[name] for name in names]


def piqa_texts(row: Row) -> list[str]:
    """Take the goal and the right solution."""
    return [row["goal"], row["sol2" if row["label"] else "sol1"]]


def hellaswag_texts(row: Row) -> list[str]:
    """Take the context with its right ending."""
    return [f"{row['ctx']} {row['endings'][int(row['label'])]}"]


def winogrande_texts(row: Row) -> list[str]:
    """Take the sentence with the right name filled in."""
    return [row["sentence"].replace("_", row[f"option{row['answer']}"])]


def siqa_texts(row: Row) -> list[str]:
    """Take the situation with its question."""
    return [f"{row['context']} {row['question']}"]


def choice_texts(row: Row) -> list[str]:
    """Take the question of a `Question: ... Answer:` prompt, and with it the right choice."""
    question = row["query"].removeprefix("Question: ").removesuffix("\nAnswer:")
    return [f"{question} {row['choices'][row['gold']]}"]


def mmlu_texts(row: Row) -> list[str]:
    """Take the question, and with it the right choice."""
    return [f"{row['question']} {row['choices'][row['answer']]}"]


def lambada_texts(row: Row) -> list[str]:
    """Take the passage with its last word."""
    return [f"{row['query']} {row['answers_text'][0]}"]
