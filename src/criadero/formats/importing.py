"""A MODEL made by others, written as a Hugging Face folder.

Entry points: `import_model`, and `write_folder` for a model that is open already. One tensor is in memory at
a time; the source is only ever read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from criadero import files
from criadero.errors import FormatError, UsageError
from criadero.formats.huggingface import listed_hashes, save_model
from criadero.formats.load import open_model, tokenizer_of
from criadero.formats.stored import StoredModel

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Imported:
    """What was written, for people and programs."""

    source: str
    kind: str
    folder: str
    parameters: int
    dtype: str
    tokenizer: str | None


def import_model(source: Path, folder: Path, *, dtype: torch.dtype | None = None) -> Imported:
    """Write the model at `source` as a Hugging Face folder.

    Args:
        folder: must not exist, nor lie inside the source.
        dtype: precision to write; None keeps the stored one, and float16 for quantised weights, whose
            scales are float16.

    Raises:
        FormatError, CheckpointError, TokenizerError: as `open_model`; a value does not fit into `dtype`.
        RunError: `folder` exists.
        ResourceError: the disk has no room.
    """
    require_outside(source, folder)
    return write_folder(open_model(source), folder, dtype=dtype)


def require_outside(source: Path, out: Path) -> None:
    """Check that what is written does not lie in what is read.

    Raises:
        UsageError: it does.
    """
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise UsageError(
            f"`{out}` lies inside the source `{source}`, which is never written to",
            hint="choose an output beside it",
        )


def write_folder(
    stored: StoredModel, folder: Path, *, dtype: torch.dtype | None = None, card: str | None = None
) -> Imported:
    """Write an open model as a Hugging Face folder; as `import_model`.

    Args:
        card: text of its README.md.
    """
    tokenizer = tokenizer_of(stored)
    dtype = dtype or stored.dtype
    save_model(
        ((name, tensor.read()) for name, tensor in stored.tensors.items()),
        stored.config,
        tokenizer,
        folder,
        dtype=dtype,
        chat_template=stored.chat_template,
        card=card,
        inputs={"source": str(stored.path), "kind": stored.kind, "sha256": _hashes(stored.path)},
    )
    return Imported(
        source=str(stored.path),
        kind=stored.kind,
        folder=str(folder),
        parameters=sum(torch.Size(tensor.shape).numel() for tensor in stored.tensors.values()),
        dtype=str(dtype).removeprefix("torch."),
        tokenizer=None if tokenizer is None else tokenizer.kind,
    )


def _hashes(path: Path) -> dict[str, str]:
    """Return the sha256 of each file of the source, by name.

    Raises:
        FormatError: a file is not what the manifest of a folder of ours says.
    """
    paths = [path] if path.is_file() else sorted(child for child in path.iterdir() if child.is_file())
    hashes = {child.name: files.sha256_file(child) for child in paths}
    for name, expected in listed_hashes(path).items():
        if hashes.get(name) != expected:
            raise FormatError(
                f"`{path / name}` is damaged: sha256 {hashes.get(name)}, its manifest says {expected}",
                hint="restore the folder from a copy, or write it again from its run",
            )
    return hashes
