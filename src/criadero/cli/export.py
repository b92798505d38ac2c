"""`criadero export MODEL hf|gguf OUT`: a model written for transformers, vLLM or llama.cpp."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from criadero.cli.output import Json, print_json
from criadero.errors import UsageError
from criadero.files import format_bytes

if TYPE_CHECKING:
    from criadero.formats.exporting import Exported

_FOLDER_DTYPES = ("float32", "bfloat16", "float16")
_GGUF_DTYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1")


class Form(StrEnum):
    """What is written."""

    hf = "hf"
    gguf = "gguf"


def export(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="Hugging Face or Meta folder, .gguf file, run or checkpoint."),
    ],
    form: Annotated[
        Form,
        typer.Argument(metavar="FORMAT", help="hf: a Hugging Face folder; gguf: a file for llama.cpp."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder or file to write; must not exist.")],
    dtype: Annotated[
        str | None,
        typer.Option(
            help=f"Precision to write. hf: {', '.join(_FOLDER_DTYPES)}, default as stored. "
            f"gguf: {', '.join(_GGUF_DTYPES)}, default f16."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Write a model for other programs, without any network; the model is only read."""
    done = _export(model, form, out, dtype)
    if json:
        print_json(asdict(done))
        return
    tokenizer = f"{done.tokenizer} tokenizer" if done.tokenizer else "no tokenizer"
    typer.echo(
        f"{done.kind}: {done.parameters:,} parameters, {tokenizer}, written in {done.dtype}, "
        f"{format_bytes(done.size_bytes)}"
    )
    typer.echo(f"next: criadero generate {out} 'Once upon a time'")


def _export(model: Path, form: Form, out: Path, dtype: str | None) -> Exported:
    allowed = _FOLDER_DTYPES if form is Form.hf else _GGUF_DTYPES
    if dtype is not None and dtype not in allowed:
        raise UsageError(
            f"`--dtype {dtype}` is not a precision of the format {form}",
            hint=f"choose one of {', '.join(allowed)}",
        )
    from criadero.formats.exporting import export_gguf, export_huggingface
    from criadero.formats.importing import DTYPES
    from criadero.report.model_facts import training_facts

    if form is Form.gguf:
        return export_gguf(model, out, facts_of=training_facts, dtype=dtype or "f16")
    chosen = None if dtype is None else DTYPES[dtype]
    return export_huggingface(model, out, facts_of=training_facts, dtype=chosen)
