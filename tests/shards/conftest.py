"""Shards built from a few made-up documents of very different lengths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from criadero.corpus.document import Document
from criadero.shards.config import ShardConfig
from criadero.shards.write import build
from shards.fake_tokenizer import ByteTokenizer

BuildShards = Callable[..., Path]


def make_documents(count: int, *, prefix: str = "doc", longest: int = 60) -> list[Document]:
    """Texts of 1 to `longest` characters, some of several bytes, each telling its own number."""
    return [
        Document(f"{prefix}-{n}", (f"{n}é漢🦙 " * longest)[: 1 + n * 7 % longest], "made-up")
        for n in range(count)
    ]


@pytest.fixture
def build_shards(tmp_path: Path) -> BuildShards:
    """Return a function that builds shards and returns their folder."""

    def build_them(
        documents: Sequence[Document],
        name: str = "shards",
        *,
        tokenizer: ByteTokenizer | None = None,
        **config,
    ) -> Path:
        config = {"heldout_fraction": 0.0, "shard_tokens": 500, **config}
        build(documents, tokenizer or ByteTokenizer(), tmp_path / name, config=ShardConfig(**config))
        return tmp_path / name

    return build_them
