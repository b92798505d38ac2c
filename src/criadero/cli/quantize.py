"""`criadero quantize MODEL OUT`: fewer bits a weight, and what that does to the perplexity."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from criadero.cli.generate import Device, Model
from criadero.cli.output import Json, print_json
from criadero.cli.perplexity import ScoringDisplay
from criadero.files import format_bytes

if TYPE_CHECKING:
    from criadero.generate.quantizing import QuantizedModel


class Bits(StrEnum):
    """Bits a weight."""

    eight = "8"
    four = "4"


def quantize(
    model: Model,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The .gguf file to write; must not exist.")],
    bits: Annotated[
        Bits, typer.Option(help="Bits a weight: 8 loses next to nothing, 4 halves the file again.")
    ],
    text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Text to score before and after, UTF-8. Default: a story by Conan Doyle, 24 kB.",
            show_default=False,
        ),
    ] = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Write a model with fewer bits a weight, as a GGUF file, and say how its perplexity changes."""
    from criadero.generate.perplexity import read_text
    from criadero.generate.quantizing import quantize_model
    from criadero.report.model_facts import training_facts

    with ScoringDisplay() as display:
        done = quantize_model(
            model,
            out,
            bits=4 if bits is Bits.four else 8,
            facts_of=training_facts,
            text=None if text is None else read_text(text),
            device=device,
            on_progress=display.show,
        )
    if json:
        print_json(_as_values(done, out))
    else:
        _describe(done, out)


def _as_values(done: QuantizedModel, out: Path) -> dict[str, object]:
    return {
        "out": str(out),
        "kind": done.kind,
        "parameters": done.parameters,
        "size_bytes": done.size_bytes,
        "before": asdict(done.before),
        "after": asdict(done.after),
        "perplexity_change": done.change,
        "memory": asdict(done.memory),
    }


def _describe(done: QuantizedModel, out: Path) -> None:
    bits_per_weight = 8 * done.size_bytes / done.parameters
    typer.echo(
        f"{out}: {format_bytes(done.size_bytes)}, {bits_per_weight:.2f} bits a weight, from {done.kind}"
    )
    typer.echo(
        f"perplexity {done.before.perplexity:.4f} -> {done.after.perplexity:.4f} ({100 * done.change:+.2f}%) "
        f"over {done.after.tokens:,} tokens"
    )
    typer.echo(
        f"memory to answer: {format_bytes(done.memory.total_bytes)} "
        f"({format_bytes(done.memory.weights_bytes)} of weights, "
        f"{format_bytes(done.memory.cache_bytes)} for {done.config.max_seq_len:,} tokens of context)"
    )
    typer.echo(f"next: criadero generate {out} 'Once upon a time'")
