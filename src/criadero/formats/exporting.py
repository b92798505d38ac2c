"""A MODEL written for other programs: as a Hugging Face folder with a card, or as a GGUF file.

Entry points: `export_model`, and `export_huggingface` and `export_gguf` behind it. One tensor is in memory at
a time, nothing is fetched, and what is written appears whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from criadero import files
from criadero.errors import UsageError
from criadero.formats.gguf_write import GGUF_DTYPES, write_gguf
from criadero.formats.importing import DTYPES, require_outside, write_folder
from criadero.formats.load import open_model, tokenizer_of
from criadero.formats.model_card import TrainingFacts, model_card
from criadero.formats.stored import StoredModel
from criadero.notices import say_once

_PRECISIONS = {"hf": tuple(DTYPES), "gguf": GGUF_DTYPES}
_FOLDERS_OF_A_RUN = ("model", "checkpoints")


@dataclass(frozen=True)
class Exported:
    """What was written, for people and programs."""

    source: str
    kind: str
    out: str
    format: str
    dtype: str
    parameters: int
    size_bytes: int
    tokenizer: str | None


def export_model(
    source: Path,
    form: str,
    out: Path,
    *,
    facts_of: Callable[[StoredModel], TrainingFacts],
    dtype: str | None = None,
) -> Exported:
    """Write the model at `source` in a form given by name, as users name it.

    Args:
        form: hf or gguf.
        dtype: the name of a precision of that form; None keeps what is stored (hf), or is f16 (gguf).

    Raises:
        UsageError: no such form or precision; and all of `export_huggingface` and `export_gguf`.
    """
    if form not in _PRECISIONS:
        raise UsageError(f"the format `{form}` is not known", hint=f"choose one of {', '.join(_PRECISIONS)}")
    if dtype is not None and dtype not in _PRECISIONS[form]:
        raise UsageError(
            f"`--dtype {dtype}` is not a precision of the format {form}",
            hint=f"choose one of {', '.join(_PRECISIONS[form])}",
        )
    if form == "gguf":
        return export_gguf(source, out, facts_of=facts_of, dtype=dtype or "f16")
    return export_huggingface(source, out, facts_of=facts_of, dtype=None if dtype is None else DTYPES[dtype])


def export_huggingface(
    source: Path,
    folder: Path,
    *,
    facts_of: Callable[[StoredModel], TrainingFacts],
    dtype: torch.dtype | None = None,
) -> Exported:
    """Write the model at `source` as a Hugging Face folder with its card as README.md.

    Args:
        folder: must not exist, nor lie inside the source.
        facts_of: finds what is known of how the model was made.
        dtype: precision to write; None keeps the stored one, and float16 for quantised weights.

    Raises:
        FormatError, CheckpointError, TokenizerError: as `open_model`; a value does not fit into `dtype`.
        UsageError: `folder` lies inside the source.
        RunError: `folder` exists, or cannot be written.
        ResourceError: the disk has no room.
    """
    require_outside(source, folder)
    stored = open_model(source)
    name = model_name(stored)
    card = model_card(stored, facts_of(stored), name=name, dtype=dtype or stored.dtype)
    done = write_folder(stored, folder, dtype=dtype, card=card)
    return _exported(stored, folder, "hf", dtype=done.dtype, tokenizer=done.tokenizer)


def export_gguf(
    source: Path,
    path: Path,
    *,
    facts_of: Callable[[StoredModel], TrainingFacts],
    dtype: str = "f16",
    ends_dtype: str | None = None,
) -> Exported:
    """Write the model at `source` as a GGUF file.

    Args:
        path: must not exist, nor lie inside the source.
        facts_of: finds what is known of how the model was made; the licence goes into the file.
        dtype: one of `criadero.formats.gguf_write.GGUF_DTYPES`, for the matrices.
        ends_dtype: another one for embedding and output; None for the same.

    Raises:
        FormatError, CheckpointError, TokenizerError: as `open_model`; llama.cpp would encode text
            differently; a value does not fit into `dtype`.
        UsageError: `path` lies inside the source.
        RunError: `path` exists, or cannot be written.
        ResourceError: the disk has no room.
    """
    require_outside(source, path)
    stored = open_model(source)
    tokenizer = tokenizer_of(stored)
    if stored.is_quantized and dtype.startswith("q") and dtype.upper() not in stored.kind:
        say_once(
            f"`{source}` is a {stored.kind}: rounding it again, to {dtype}, loses more; "
            "better begin with the model in float"
        )
    write_gguf(
        stored,
        path,
        dtype=dtype,
        name=model_name(stored),
        tokenizer=tokenizer,
        licence=facts_of(stored).licence,
        ends_dtype=ends_dtype,
    )
    kind = None if tokenizer is None else tokenizer.kind
    return _exported(stored, path, "gguf", dtype=dtype, tokenizer=kind)


def model_name(stored: StoredModel) -> str:
    """Return what a model is called after the file or folder it lies in; a run's are called as the run."""
    path = stored.path.resolve()
    if path.is_file():
        return path.stem
    while path.name in _FOLDERS_OF_A_RUN or path.parent.name == "checkpoints":
        path = path.parent
    return path.name or "model"


def _exported(stored: StoredModel, out: Path, form: str, *, dtype: str, tokenizer: str | None) -> Exported:
    return Exported(
        source=str(stored.path),
        kind=stored.kind,
        out=str(out),
        format=form,
        dtype=dtype,
        parameters=sum(torch.Size(tensor.shape).numel() for tensor in stored.tensors.values()),
        size_bytes=out.stat().st_size if out.is_file() else files.folder_bytes(out),
        tokenizer=tokenizer,
    )
