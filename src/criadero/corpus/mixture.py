"""The mixture: how often each source is seen in training, as Table 1 of the paper states it (LLaMA 2.1).

Input are the measured sizes of the finished sources and weights; output is a row for each source: share of
the training tokens, epochs, size on disk. Entry points: `measure` and `count_tokens` for one source, `mix`
for the table, `data_sources` for the lines of a training config. `PAPER_MIXTURE` is the paper's own table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

from criadero import files
from criadero.config import Config
from criadero.corpus.extra import require_extra
from criadero.corpus.sources import text
from criadero.errors import DataError
from criadero.tokenizer.tokenizer import Tokenizer

_BATCH_DOCUMENTS = 256

TokenCount = Literal["counted", "estimated"]


class MixtureConfig(Config):
    """Section [mixture]: weights of the sources and the length of the training they are meant for.

    Attributes:
        weights: by source, of any sum; 0 leaves a source out. Default: by size, so that all epochs are equal.
        tokens: length of the training. Default: as many tokens as all sources have.
        max_epochs: refuse a mixture that would go through a source more often.
        tokenizer: a tokenizer folder or file, or a model, to count tokens with.
        bytes_per_token: to estimate tokens with where no tokenizer is given.
    """

    weights: dict[str, float] = Field(default_factory=dict)
    tokens: PositiveInt | None = None
    max_epochs: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    tokenizer: Path | None = None
    bytes_per_token: float = Field(default=4.0, gt=0, allow_inf_nan=False)


@dataclass(frozen=True)
class SourceSize:
    """How much a source holds: documents, bytes of UTF-8, tokens as stored in shards (None: not counted)."""

    source: str
    documents: int
    text_bytes: int
    tokens: int | None = None


@dataclass(frozen=True)
class MixtureRow:
    """One line of Table 1.

    Attributes:
        source: its name.
        share: of the training tokens that come from it, 0 to 1.
        epochs: how often it is gone through.
        disk_bytes: size of its text in UTF-8.
        tokens: that it holds once.
        documents: that it holds.
    """

    source: str
    share: float
    epochs: float
    disk_bytes: int
    tokens: int
    documents: int


@dataclass(frozen=True)
class Mixture:
    """The table: its rows, the training tokens it is for, and whether tokens were counted or estimated."""

    rows: tuple[MixtureRow, ...]
    tokens: int
    token_count: TokenCount


def measure(folder: Path) -> tuple[int, int]:
    """Return documents and bytes of text in the Parquet files of `folder`."""
    if not (paths := sorted(str(path) for path in folder.glob("*.parquet"))):
        return 0, 0
    with require_extra("measuring a source"):
        import duckdb
    with duckdb.connect() as database:
        query = "SELECT count(*), coalesce(sum(strlen(text)), 0)::BIGINT FROM read_parquet(?)"
        documents, text_bytes = database.execute(query, [paths]).fetchall()[0]
    return documents, text_bytes


def count_tokens(folder: Path, tokenizer: Tokenizer, *, tick: Callable[[], None]) -> int:
    """Return the tokens of all documents in `folder`, as many as `shards build` stores.

    Args:
        tick: called every few hundred documents; what it raises ends the count.
    """
    around = sum(token is not None for token in (tokenizer.bos_id, tokenizer.eos_id))
    texts = (document.text for document in text.read(folder) if document.text)
    tokens = 0
    while batch := list(islice(texts, _BATCH_DOCUMENTS)):
        tokens += sum(len(ids) + around for ids in tokenizer.encode_batch(batch))
        tick()
    return tokens


def mix(sizes: Sequence[SourceSize], config: MixtureConfig) -> Mixture:
    """Work out share and epochs of every source.

    Raises:
        DataError: a source with a weight holds nothing, no source has a weight, or `max_epochs` is exceeded;
            every source at fault is named.
    """
    tokens = {size.source: _tokens(size, config) for size in sizes}
    weights = config.weights or tokens
    total_weight = sum(weights.get(name, 0) for name in tokens)
    empty = [name for name, held in tokens.items() if weights.get(name, 0) > 0 and not held]
    if empty or not total_weight:
        names = ", ".join(f"`{name}`" for name in empty)
        raise DataError(
            f"nothing can be drawn from {names}: no document is left" if empty else "the corpus is empty",
            hint="`criadero corpus funnel` shows where documents were lost"
            + ("; weight 0 leaves a source out" if empty else ""),
        )
    budget = config.tokens or sum(tokens.values())
    rows = []
    for size in sizes:
        held, share = tokens[size.source], weights.get(size.source, 0) / total_weight
        epochs = share * budget / held if held else 0.0
        rows.append(MixtureRow(size.source, share, epochs, size.text_bytes, held, size.documents))
    _refuse_repetition(rows, budget, config.max_epochs)
    counted = all(size.tokens is not None for size in sizes)
    return Mixture(tuple(rows), budget, "counted" if counted else "estimated")


def _tokens(size: SourceSize, config: MixtureConfig) -> int:
    return size.tokens if size.tokens is not None else math.ceil(size.text_bytes / config.bytes_per_token)


def _refuse_repetition(rows: Sequence[MixtureRow], budget: int, max_epochs: float | None) -> None:
    over = [row for row in rows if max_epochs is not None and row.epochs > max_epochs]
    if over and max_epochs is not None:
        worst = max(row.epochs for row in over)
        listed = ", ".join(f"`{row.source}` {row.epochs:,.2f} times" for row in over)
        raise DataError(
            f"{budget:,} training tokens would go through {listed}, "
            f"more than mixture.max_epochs ({max_epochs:g})",
            hint=f"lower the weight, add text, or train on {int(budget * max_epochs / worst):,} tokens",
        )


def mixture_values(mixture: Mixture) -> dict[str, Any]:
    """Return the table as JSON values."""
    return {
        "format_version": 1,
        "tokens": mixture.tokens,
        "token_count": mixture.token_count,
        "sources": [asdict(row) for row in mixture.rows],
    }


def read_mixture(path: Path) -> Mixture:
    """Return the table that `mixture_values` made.

    Raises:
        DataError: the file is missing or not such a table.
    """
    values = files.read_json(path)
    try:
        rows = tuple(MixtureRow(**row) for row in values["sources"])
        return Mixture(rows, values["tokens"], values["token_count"])
    except (KeyError, TypeError) as problem:
        raise DataError(f"`{path}` is no mixture: {problem}") from None


def data_sources(mixture: Mixture, shards: Path) -> str:
    """Return the `[[data.sources]]` lines of a training config; shards of a source are in `shards/NAME`."""
    return "\n".join(
        f'[[data.sources]]\nname = "{row.source}"\npath = "{shards / row.source}"\nweight = {row.share:.6g}\n'
        for row in mixture.rows
        if row.share > 0
    )


@dataclass(frozen=True)
class PaperRow:
    """One line of the paper's Table 1: share of 1.4T tokens, epochs, size on disk."""

    share: float
    epochs: float
    disk_bytes: int

    @property
    def unique_tokens(self) -> float:
        """Tokens the source held, which follow from share and epochs."""
        return self.share * PAPER_TOKENS / self.epochs


PAPER_TOKENS = 1_400_000_000_000
PAPER_MIXTURE: Mapping[str, PaperRow] = {
    "commoncrawl": PaperRow(0.67, 1.10, 3_300 * 10**9),
    "c4": PaperRow(0.15, 1.06, 783 * 10**9),
    "github": PaperRow(0.045, 0.64, 328 * 10**9),
    "wikipedia": PaperRow(0.045, 2.45, 83 * 10**9),
    "books": PaperRow(0.045, 2.23, 85 * 10**9),
    "arxiv": PaperRow(0.025, 1.06, 92 * 10**9),
    "stackexchange": PaperRow(0.02, 1.03, 78 * 10**9),
}
