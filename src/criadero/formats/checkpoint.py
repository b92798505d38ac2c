"""A checkpoint of our own as a model: the weights of any step of a run, without exporting it first.

Entry points: `open_folder` and `read_tokenizer`. `path` is one checkpoint or a run's folder of them, of
which the newest whole one is taken. The architecture and the tokenizer are those of the run's config.toml,
two folders up.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from criadero.checkpoint.load import find_newest_good, read_tensors, verified_manifest
from criadero.checkpoint.manifest import read_manifest
from criadero.config import validate
from criadero.errors import CheckpointError, ConfigError, TokenizerError
from criadero.formats.stored import StoredModel, StoredTensor, check
from criadero.model.config import ModelConfig
from criadero.tokenizer import tokenizer as tokenizers
from criadero.tokenizer.tokenizer import Tokenizer

_PREFIX = "model."


def open_folder(path: Path) -> StoredModel:
    """Verify a checkpoint and describe its weights; no weights yet.

    Raises:
        CheckpointError: it is damaged, there is none, or the run's config.toml does not fit it.
    """
    folder = _one_checkpoint(path)
    values = _run_values(folder)
    try:
        config = validate(ModelConfig, values.get("model", {}), where=f"[model] of the run of `{folder}`")
    except ConfigError as problem:
        raise CheckpointError(problem.message, hint=problem.hint) from None
    entries = read_manifest(folder).tensors
    tensors = {
        name.removeprefix(_PREFIX): StoredTensor(
            tuple(entry.shape), getattr(torch, entry.dtype), partial(_read, folder, name)
        )
        for name, entry in entries.items()
        if name.startswith(_PREFIX)
    }
    check(folder, config, tensors)
    tokenizer_folder = _tokenizer_folder(values)
    return StoredModel(
        path=folder,
        kind="checkpoint",
        config=config,
        tensors=tensors,
        read_tokenizer=partial(tokenizers.load, tokenizer_folder) if tokenizer_folder else None,
    )


def read_tokenizer(path: Path) -> Tokenizer:
    """Read the tokenizer of the run a checkpoint belongs to.

    Raises:
        TokenizerError: the run's data folder is not there any more.
    """
    run = path.parent if path.name == "checkpoints" else path.parent.parent
    folder = _tokenizer_folder(_run_values(run / "checkpoints" / "any"))
    if folder is None:
        raise TokenizerError(f"the tokenizer of the run `{run}` is not where its config.toml says")
    return tokenizers.load(folder)


def _one_checkpoint(path: Path) -> Path:
    if (path / "manifest.json").is_file():
        verified_manifest(path)
        return path
    newest = find_newest_good(path)
    if newest is None:
        raise CheckpointError(f"`{path}` holds no checkpoint yet")
    return newest


def _read(folder: Path, name: str) -> Tensor:
    return next(tensor for found, tensor in read_tensors(folder, prefix=name, verify=False) if found == name)


def _run_values(checkpoint: Path) -> Mapping[str, Any]:
    """Read config.toml of the run that `RUN/checkpoints/STEP` belongs to."""
    path = checkpoint.absolute().parent.parent / "config.toml"
    try:
        with path.open("rb") as stream:
            return tomllib.load(stream)
    except (OSError, ValueError) as problem:
        raise CheckpointError(
            f"`{checkpoint}` cannot be used as a model without the run's config: `{path}`: {problem}",
            hint="keep the checkpoint in its run folder",
        ) from None


def _tokenizer_folder(values: Mapping[str, Any]) -> Path | None:
    """Return where the first source of the run's data keeps the tokenizer, if it is still there."""
    sources = values.get("data", {}).get("sources") or [{}]
    folder = Path(str(sources[0].get("path", ""))) / "tokenizer"
    return folder if folder.is_dir() else None
