"""Decontamination: documents that repeat items of evaluation benchmarks are left out of the corpus.

Entry points: `stage(config)` for a recipe, `report` for what it found. A document is contaminated if it
shares 13 consecutive words with an item (GPT-3, Brown et al. 2020, appendix C; words as in
`criadero.corpus.shingles`: without case and punctuation). An item of 8 to 12 words counts if the document
holds it whole; shorter ones are not looked for. What more than ten items of one benchmark share is its
template, and is ignored.
`criadero.corpus.overlap_index` does the search.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from criadero.config import Config
from criadero.corpus import benchmark_sets
from criadero.corpus.document import Document, Drop
from criadero.corpus.engine.stage import DocumentFunction, Each
from criadero.corpus.overlap_index import OverlapIndex
from criadero.corpus.shingles import WordHashes
from criadero.errors import DataError

STAGE = "decontaminate"
REASON = "contaminated"

_MAX_NAMED_ITEMS = 1000  # in the ledger's row of one document


class DecontaminationConfig(Config):
    """What counts as contaminated.

    Attributes:
        benchmarks: the folder that `criadero benchmarks fetch` made.
        names: benchmarks to look for; empty for all in the folder.
        ngram: words in a row that a document and an item must share.
        min_words: a shorter item than `ngram` counts whole, from this many words on; at most `ngram`.
    """

    benchmarks: Path
    names: tuple[str, ...] = ()
    ngram: int = Field(default=13, ge=2, le=64)
    min_words: int = Field(default=8, ge=1, le=64)

    @model_validator(mode="after")
    def _min_words_fit(self) -> DecontaminationConfig:
        if self.min_words > self.ngram:
            raise ValueError(f"min_words is {self.min_words}, more than ngram, {self.ngram}")
        return self


def stage(config: DecontaminationConfig) -> Each:
    """Return the step that drops documents with an overlap, and names the items.

    Raises:
        DataError: the folder holds no benchmarks, or not those named.
    """
    files = benchmark_sets.files(config.benchmarks, config.names)
    return Each(STAGE, make, settings=config.model_dump(mode="json"), files=tuple(files.values()))


def open_index(config: DecontaminationConfig) -> OverlapIndex:
    """Return the index of the chosen benchmarks, in memory.

    Raises:
        DataError: as `stage`.
    """
    files = benchmark_sets.files(config.benchmarks, config.names)
    return OverlapIndex(files, ngram=config.ngram, min_words=config.min_words)


def make(**settings: Any) -> DocumentFunction:
    """Return the function with its index built: for all benchmarks about 5 seconds and 250 MB."""
    return Decontaminate(DecontaminationConfig(**settings))


class Decontaminate:
    """Drops a document that overlaps with an item; the score is the number of words it shares with items."""

    def __init__(self, config: DecontaminationConfig) -> None:
        self._index = open_index(config)
        self._word_hashes = WordHashes()

    def __call__(self, document: Document) -> Document | Drop:
        overlaps = self._index.find(document.text, self._word_hashes(document.text))
        if not overlaps:
            return document
        shared = {overlap.first_word + i for overlap in overlaps for i in range(overlap.words)}
        named = list(dict.fromkeys(overlap.item for overlap in overlaps))
        return Drop(REASON, score=len(shared), detail=", ".join(named[:_MAX_NAMED_ITEMS]))


@dataclass(frozen=True)
class BenchmarkOverlap:
    """What a corpus had of one benchmark.

    Attributes:
        benchmark: its name.
        items: in all.
        too_short: of them, too short to be looked for.
        items_found: of them, that at least one dropped document holds.
        documents_dropped: that hold an item of it; one document can count for several benchmarks.
    """

    benchmark: str
    items: int
    too_short: int
    items_found: int
    documents_dropped: int


def report(corpus: Path, config: DecontaminationConfig) -> list[BenchmarkOverlap]:
    """Return what the ledger of a corpus says about each benchmark, in the benchmarks' order.

    Args:
        corpus: the folder that `criadero corpus build` made.
        config: as the corpus was built with.

    Raises:
        DataError: the benchmarks cannot be read, or `corpus` has no ledger.
    """
    found: dict[str, set[str]] = {}
    documents: Counter[str] = Counter()
    for detail in _dropped(corpus):
        by_benchmark = _by_benchmark(detail.split(", "))
        documents.update(by_benchmark.keys())
        for name, items in by_benchmark.items():
            found.setdefault(name, set()).update(items)
    too_short = open_index(config).too_short
    return [
        BenchmarkOverlap(
            benchmark=entry["name"],
            items=sum(entry["items"].values()),
            too_short=too_short[entry["name"]],
            items_found=len(found.get(entry["name"], ())),
            documents_dropped=documents[entry["name"]],
        )
        for entry in benchmark_sets.read_manifest(config.benchmarks)
        if not config.names or entry["name"] in config.names
    ]


def markdown(overlaps: Sequence[BenchmarkOverlap]) -> str:
    """Return a report as a Markdown table."""
    head = ["benchmark", "items", "too short", "found in the corpus", "documents dropped"]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for overlap in overlaps:
        name, *numbers = asdict(overlap).values()
        lines.append(f"| {name} | {' | '.join(f'{number:,}' for number in numbers)} |")
    return "\n".join(lines) + "\n"


def _dropped(corpus: Path) -> Iterable[str]:
    """Return the `detail` of each document that was dropped as contaminated."""
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    ledger = corpus / "ledger"
    if not ledger.is_dir():
        raise DataError(f"`{corpus}` has no ledger", hint="name a folder that `criadero corpus build` made")
    dropped = (pc.field("outcome") == "dropped") & (pc.field("reason") == REASON)
    table = ds.dataset(ledger, format="parquet").to_table(columns=["detail"], filter=dropped)
    details: list[str] = table["detail"].to_pylist()
    return details


def _by_benchmark(items: Iterable[str]) -> Mapping[str, set[str]]:
    grouped: dict[str, set[str]] = {}
    for item in items:
        grouped.setdefault(item.partition(":")[0], set()).add(item)
    return grouped
