"""`criadero demo`: the whole path on the samples, with numbers and a picture at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from criadero.cli.output import Json, print_json

if TYPE_CHECKING:
    from criadero.demo import DemoResult


def demo(
    config: Annotated[Path, typer.Argument(help="The training config.")] = Path("configs/demo.toml"),
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings to replace: section.key=value ...")
    ] = None,
    recipe: Annotated[Path, typer.Option(help="The recipe of the corpus.")] = Path("samples/recipe.toml"),
    json: Json = False,
) -> None:
    """Make a corpus of raw samples, train a small LLaMA on it in a few minutes and let it talk."""
    from dataclasses import asdict

    from criadero import config as configuration
    from criadero.cli.corpus_progress import CorpusDisplay
    from criadero.cli.progress import ProgressDisplay
    from criadero.corpus.extra import require_extra
    from criadero.train.config import RunConfig
    from criadero.train.stop import StopFlag

    with require_extra("the demo"):
        from criadero.demo import run_demo

    settings = configuration.load(RunConfig, config, overrides or [])
    with (
        StopFlag().on_signals() as stop,
        CorpusDisplay() as corpus_display,
        ProgressDisplay(settings, shown=True) as train_display,
    ):
        result = run_demo(
            settings,
            recipe,
            stop=stop,
            progress=corpus_display,
            hooks=[train_display],
        )
    if json:
        print_json(asdict(result))
    else:
        _print_result(result)


def _print_result(result: DemoResult) -> None:
    ours, alone = result.heldout_bits_per_byte, result.xz_bits_per_byte_alone
    after = result.xz_bits_per_byte_after_training_text
    typer.echo(
        f"""
{result.parameters:,} parameters, {result.tokens:,} training tokens

held-out text, bits per byte (less is better)
  this model                           {ours:.3f}
  5-gram model, all training text      {result.ngram_bits_per_byte:.3f}   \
({100 * (1 - ours / result.ngram_bits_per_byte):+.1f}% for the model)
  xz -9e, the held-out text alone      {alone:.3f}   ({100 * (1 - ours / alone):+.1f}% for the model)
  xz -9e, given the training text      {after:.3f}   ({100 * (1 - ours / after):+.1f}% for the model)

{result.prompt}{result.sample}

energy   {result.energy_kwh:.4f} kWh, {1000 * result.kgco2e:.1f} g CO2e \
({100 * result.energy_measured_fraction:.0f}% of it measured, the rest estimated), \
{result.seconds:.0f} s of training
corpus   {result.corpus_card}
loss     {result.loss_curve}
metrics  {result.metrics}
model    {result.model} (Hugging Face format)

next:
  .venv/bin/criadero chat {result.model}
  .venv/bin/criadero generate {result.model} "Fellow citizens" --max-tokens 100
  .venv/bin/criadero runs runs --compare"""
    )
