"""What people set: `ShardConfig` for building shards, `DataConfig` (section [data]) for training on them."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from criadero.config import Config


class ShardConfig(Config):
    """How documents become shards.

    Attributes:
        source: name of the source, kept in the manifest.
        heldout_fraction: share of the documents kept from training, drawn by a hash of (seed, document id).
        seed: which documents the hash draws.
        shard_tokens: a shard is closed once it holds this many tokens; documents are never cut.
        bos, eos: put the tokenizer's opening and closing token around each document.
    """

    source: str = Field(default="text", min_length=1)
    heldout_fraction: float = Field(default=0.02, ge=0, lt=1)
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    shard_tokens: PositiveInt = 1 << 27
    bos: bool = True
    eos: bool = True


class SourceConfig(Config):
    """One source of the mixture.

    Attributes:
        name: what metrics and messages call it; decides its shuffle.
        path: the folder that `shards build` made.
        weight: share of the training sequences; all sources or none have one. Default: by size.
        max_epochs: refuse, before the start, a run that would go through this source more often.
    """

    name: str = Field(min_length=1)
    path: Path
    weight: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    max_epochs: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class DataConfig(Config):
    """Section [data]: which shards in which proportions, cut into which sequences.

    Attributes:
        sources: the mixture (LLaMA 2.1, Table 1).
        seq_len: tokens per training sequence.
        seed: decides the order; another seed is another order of the same sequences.
        mask_documents: no attention across documents, positions restart in each; off is the paper's way.
        verify: check the sha256 of every shard before the start.
        max_bad_sequences: sequences with impossible token ids that may be left out before it is an error.
    """

    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    seq_len: PositiveInt = 2048
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    mask_documents: bool = False
    verify: bool = True
    max_bad_sequences: int = Field(default=0, ge=0)

    @field_validator("sources")
    @classmethod
    def _names_differ(cls, sources: tuple[SourceConfig, ...]) -> tuple[SourceConfig, ...]:
        names = [source.name for source in sources]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two sources are called {', '.join(twice)}")
        return sources

    @model_validator(mode="after")
    def _weights_are_whole(self) -> Self:
        without = [source.name for source in self.sources if source.weight is None]
        if without and len(without) < len(self.sources):
            raise ValueError(f"give every source a weight or none; without one: {', '.join(without)}")
        return self
