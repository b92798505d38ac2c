"""`criadero export MODEL hf|gguf OUT`: a model written for transformers, vLLM or llama.cpp."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from criadero.cli.output import Json, print_json
from criadero.files import format_bytes


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
            help="Precision to write. hf: float32, float16, bfloat16, default as stored. "
            "gguf: f32, f16, bf16, q8_0, q4_0, q4_1, default f16."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Write a model for other programs, without any network; the model is only read."""
    from criadero.formats.exporting import export_model
    from criadero.report.model_facts import training_facts

    done = export_model(model, form.value, out, facts_of=training_facts, dtype=dtype)
    if json:
        print_json(asdict(done))
        return
    tokenizer = f"{done.tokenizer} tokenizer" if done.tokenizer else "no tokenizer"
    typer.echo(
        f"{done.kind}: {done.parameters:,} parameters, {tokenizer}, written in {done.dtype}, "
        f"{format_bytes(done.size_bytes)}"
    )
    typer.echo(f"next: criadero generate {out} 'Once upon a time'")
