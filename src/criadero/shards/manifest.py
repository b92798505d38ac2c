"""The manifests beside the shards: what was built, from what, and the sha256 of every file.

`OUT/manifest.json` (a `BuildManifest`) names the splits; `OUT/<split>/manifest.json` (a `Manifest`) lists the
shard files of one. Both carry the format version. Entry point: `read_manifest`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from criadero import files
from criadero.config import Config, validate
from criadero.errors import ConfigError, DataError
from criadero.shards.config import ShardConfig
from criadero.shards.header import VERSION, unknown_version

MANIFEST_NAME = "manifest.json"
TOKENIZER_FOLDER = "tokenizer"

Split = Literal["train", "heldout"]
Sha256 = Field(pattern="^[0-9a-f]{64}$")


class ShardFile(Config):
    """One shard file; `num_bytes` is the UTF-8 length of its documents."""

    name: str
    size_bytes: NonNegativeInt
    sha256: str = Sha256
    num_tokens: NonNegativeInt
    num_documents: NonNegativeInt
    num_bytes: NonNegativeInt


class InputFile(Config):
    """One file the documents came from."""

    name: str
    size_bytes: NonNegativeInt
    sha256: str = Sha256


class TokenizerIdentity(Config):
    """Which tokenizer made the ids, and what it put around each document (None: nothing)."""

    kind: str
    sha256: str = Sha256
    vocab_size: PositiveInt
    bos_id: NonNegativeInt | None = None
    eos_id: NonNegativeInt | None = None


class Manifest(Config):
    """The shard files of one split, in their order."""

    format_version: int = VERSION
    split: Split
    source: str
    tokenizer: TokenizerIdentity
    token_bytes: Literal[2, 4]
    num_tokens: NonNegativeInt
    num_documents: NonNegativeInt
    num_bytes: NonNegativeInt
    files: tuple[ShardFile, ...] = Field(min_length=1)

    @property
    def fingerprint(self) -> str:
        """A hash over the content of all files in order, hexadecimal."""
        return hashlib.sha256("\n".join(file.sha256 for file in self.files).encode()).hexdigest()


class BuildManifest(Config):
    """What one `shards build` made.

    `empty_documents` were left out; `skipped` counts unreadable records by input file.
    """

    format_version: int = VERSION
    config: ShardConfig
    splits: dict[Split, Manifest]
    inputs: tuple[InputFile, ...] = ()
    empty_documents: NonNegativeInt = 0
    skipped: dict[str, NonNegativeInt] = Field(default_factory=dict)
    criadero_version: str


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of one split's folder.

    Raises:
        DataError: missing, malformed, of another format version, or its sums do not add up.
    """
    path = folder / MANIFEST_NAME
    if (folder / "train" / MANIFEST_NAME).is_file():
        raise DataError(
            f"`{folder}` holds several splits",
            hint=f"name one: `{folder / 'train'}` or `{folder / 'heldout'}`",
        )
    if not path.is_file():
        raise DataError(
            f"`{folder}` holds no token shards",
            hint="make them: criadero shards build TEXT --tokenizer TOKENIZER --out FOLDER",
        )
    manifest = _read(path)
    for name in ("num_tokens", "num_documents", "num_bytes"):
        if getattr(manifest, name) != sum(getattr(file, name) for file in manifest.files):
            raise DataError(f"`{path}`: `{name}` is not the sum over its files")
    return manifest


def split_folders(path: Path) -> list[Path]:
    """Return the folders of the splits below what `build` made; a split's own folder is itself.

    Raises:
        DataError: `path` is neither.
    """
    below = [path / split for split in ("train", "heldout") if (path / split / MANIFEST_NAME).is_file()]
    if not below and not (path / MANIFEST_NAME).is_file():
        raise DataError(f"`{path}` holds no token shards", hint="name a folder that `shards build` made")
    return below or [path]


def _read(path: Path) -> Manifest:
    values: Any = files.read_json(path)
    version = values.get("format_version") if isinstance(values, dict) else None
    if version is None:
        raise DataError(f"`{path}` is no manifest of token shards: it has no `format_version`")
    if version != VERSION:
        raise unknown_version(path, version, VERSION)
    try:
        return validate(Manifest, values, where=str(path))
    except ConfigError as fault:
        raise DataError(fault.message, hint="build the shards again") from None
