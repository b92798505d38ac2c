"""`criadero import SRC OUT`: a model made by others, written as a Hugging Face folder."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from criadero.cli.output import Json, print_json


class Precision(StrEnum):
    """What the weights are written in."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


def import_(
    source: Annotated[
        Path,
        typer.Argument(metavar="SRC", help="Hugging Face or Meta folder, .gguf file, run or checkpoint."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; must not exist.")],
    dtype: Annotated[
        Precision | None,
        typer.Option(help="Precision to write. Default: as stored; float16 for quantised weights."),
    ] = None,
    json: Json = False,
) -> None:
    """Write a model made by others as a Hugging Face folder; the source is only read."""
    from criadero.formats.importing import DTYPES, import_model

    done = import_model(source, out, dtype=None if dtype is None else DTYPES[dtype.value])
    if json:
        print_json(asdict(done))
        return
    tokenizer = f"{done.tokenizer} tokenizer" if done.tokenizer else "no tokenizer"
    typer.echo(f"{done.kind}: {done.parameters:,} parameters, {tokenizer}, written in {done.dtype}")
    typer.echo(f"next: criadero generate {out} 'Once upon a time'")
