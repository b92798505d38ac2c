"""The manifest of a corpus: the recipe, the code and the inputs it was made from, and every file it has.

`manifest.json` is written last: a folder that has one is whole. It holds nothing that differs between two
builds of the same recipe, such as times or hosts, so equal corpora have equal manifests.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import criadero
from criadero import files
from criadero.config import Config, validate
from criadero.corpus.config import CorpusConfig
from criadero.corpus.engine.keys import code_version
from criadero.corpus.funnel import StageFunnel
from criadero.corpus.inputs import InputFile
from criadero.errors import ConfigError, DataError
from criadero.runs import git_commit

MANIFEST_NAME = "manifest.json"


class Part(Config):
    """A file of the corpus: its name in the folder, size and sha256."""

    name: str
    size_bytes: int
    sha256: str


class SourceManifest(Config):
    """One source: inputs and tables it was made from, what its stages did, what it holds."""

    kind: str
    inputs: tuple[InputFile, ...]
    tables: tuple[InputFile, ...]
    stages: tuple[StageFunnel, ...]
    documents: int
    text_bytes: int
    documents_parts: tuple[Part, ...]
    ledger_parts: tuple[Part, ...]


class CorpusManifest(Config):
    """Everything a corpus consists of; `key` is the hash of all that decides its content."""

    format_version: Literal[1] = 1
    key: str
    recipe: dict[str, Any]
    criadero_version: str
    git_commit: str | None
    code_sha256: str
    sources: dict[str, SourceManifest]
    others: tuple[Part, ...]


def read_manifest(out: Path) -> CorpusManifest:
    """Return the manifest of a finished corpus.

    Raises:
        DataError: there is none, or it is damaged or of another version.
    """
    path = out / MANIFEST_NAME
    if not path.exists():
        raise DataError(f"`{out}` is no finished corpus: it has no {MANIFEST_NAME}")
    try:
        return validate(CorpusManifest, files.read_json(path), where=str(path))
    except ConfigError as problem:
        raise DataError(problem.message) from None


def recipe_values(config: CorpusConfig) -> dict[str, Any]:
    """Return what decides the content of a corpus: the recipe without the limits of the engine."""
    return config.model_dump(mode="json", exclude={"engine"})


def corpus_key(
    recipe: dict[str, Any],
    inputs: dict[str, tuple[InputFile, ...]],
    tables: dict[str, tuple[InputFile, ...]],
    tokenizer: str | None,
) -> str:
    """Return the hash of recipe, inputs, tables, code and the tokenizer that tokens are counted with."""
    hashes = [
        {name: [(f.name, f.sha256) for f in found] for name, found in described.items()}
        for described in (inputs, tables)
    ]
    decisive = [recipe, hashes, code_version(), tokenizer]
    return files.sha256_bytes(json.dumps(decisive, sort_keys=True).encode())


def parts_of(out: Path, folder: Path) -> tuple[Part, ...]:
    """Return the files of a folder of the corpus, by name."""
    return tuple(part_of(out, path) for path in sorted(folder.glob("*.parquet")))


def part_of(out: Path, path: Path) -> Part:
    """Return name, size and hash of one file of the corpus."""
    name = path.relative_to(out).as_posix()
    return Part(name=name, size_bytes=path.stat().st_size, sha256=files.sha256_file(path))


def new_manifest(
    config: CorpusConfig, key: str, sources: dict[str, SourceManifest], others: tuple[Part, ...]
) -> CorpusManifest:
    """Return the manifest of what this code has just made."""
    return CorpusManifest(
        key=key,
        recipe=recipe_values(config),
        criadero_version=criadero.__version__,
        git_commit=git_commit(),
        code_sha256=code_version(),
        sources=sources,
        others=others,
    )
