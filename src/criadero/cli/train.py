"""`criadero train CONFIG`: pretrain, or go on; the same verb on one process and under torchrun or srun."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from criadero.cli.output import Json, acknowledge_stop, print_json, set_up_logging


def train(
    config: Annotated[Path, typer.Argument(help="A TOML file; ready ones are in configs/.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings to replace: section.key=value ...")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what the run would cost, without starting it.")
    ] = False,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Resume without hashing the checkpoint first.")
    ] = False,
    json: Json = False,
) -> None:
    """Pretrain a model, or go on with a run that was stopped, killed or finished on a smaller budget."""
    import os

    from criadero import config as configuration
    from criadero.train.config import RunConfig

    settings = configuration.load(RunConfig, config, overrides or [])
    if dry_run:
        _print_estimate(settings, json=json)
        return
    from criadero.cli.progress import ProgressDisplay
    from criadero.parallel.launch import launch_from
    from criadero.report.loss_curve import draw_loss_curve
    from criadero.train.loop import train as run_training
    from criadero.train.stop import StopFlag

    launch = launch_from(os.environ)
    is_first = launch.rank == 0
    if not is_first:
        set_up_logging(quiet=True)
    flag = StopFlag(acknowledge_stop if is_first else None)
    with flag.on_signals() as stop, ProgressDisplay(settings, shown=is_first) as progress:
        result = run_training(settings, launch=launch, stop=stop, hooks=[progress], verify=not no_verify)
    if not is_first:
        return
    picture = draw_loss_curve(settings.run.folder)
    summary = {
        "run": str(settings.run.folder),
        "step": result.state.step,
        "tokens": result.state.tokens,
        **result.heldout,
        "joules": result.joules,
        "loss_curve": str(picture),
        "model": str(result.model),
    }
    if json:
        print_json(summary)
        return
    for name, value in summary.items():
        typer.echo(f"{name:24} {value}")
    typer.echo(f"next: criadero generate {result.model} 'Once upon a time'")


def _print_estimate(settings: object, *, json: bool) -> None:
    from dataclasses import asdict

    from criadero.files import format_bytes
    from criadero.train.config import RunConfig
    from criadero.train.estimate import estimate

    assert isinstance(settings, RunConfig)
    cost = asdict(estimate(settings))
    if json:
        print_json(cost)
        return
    for name, value in cost.items():
        for_people = f"  ({format_bytes(value)})" if name.endswith("_bytes") else ""
        typer.echo(f"{name:32} {value:,}{for_people}")
