"""`criadero perplexity MODEL FILE`: how well a model foretells a text."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from criadero.cli.generate import Device, Dtype, Model
from criadero.cli.output import Json, PacedDisplay, print_json


def perplexity(
    model: Model,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Text to score, UTF-8.")],
    context: Annotated[
        int | None,
        typer.Option(help="Tokens the model sees at once. Default: all it can.", show_default=False),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            help="Tokens scored by each window; fewer means more context for each. Default: half of context.",
            show_default=False,
        ),
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    json: Json = False,
) -> None:
    """Score every token of a text once, with as much before it as fits."""
    from criadero.generate import perplexity as scoring
    from criadero.generate.load import load_generator

    text = scoring.read_text(file)
    opened = load_generator(model, device=device, dtype=dtype)
    with ScoringDisplay() as display:
        score = scoring.perplexity(
            opened.generator.model,
            opened.generator.tokenizer,
            text,
            context=context,
            stride=stride,
            on_progress=lambda done, total: display.show("scored", done, total),
        )
    if json:
        print_json(asdict(score))
        return
    typer.echo(
        f"perplexity {score.perplexity:.4f} over {score.tokens:,} tokens "
        f"({score.nll_per_token:.4f} nats per token, {score.bits_per_byte:.4f} bits per byte)"
    )


class ScoringDisplay(PacedDisplay):
    """Used with `with`: says how many tokens are done, on a terminal in place, elsewhere now and then."""

    def show(self, what: str, done: int, total: int) -> None:
        """Show the progress if what was shown before is old enough."""
        self.show_line(f"{what}: {done:,}/{total:,} tokens ({100 * done / total:.0f}%)")
