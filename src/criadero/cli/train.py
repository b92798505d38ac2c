"""`criadero train CONFIG`: pretrain, or go on; the same verb on one process and under torchrun or srun."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from criadero.cli.output import Json, acknowledge_stop, print_json, set_up_logging

if TYPE_CHECKING:
    from criadero.train.config import RunConfig


def train(
    config: Annotated[Path, typer.Argument(help="A TOML file; ready ones are in configs/.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings to replace: section.key=value ...")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what the run would cost, without starting it.")
    ] = False,
    device: Annotated[
        str | None,
        typer.Option("--device", help="With --dry-run: reckon memory and days on this GPU, such as A100."),
    ] = None,
    fake_world_size: Annotated[
        int | None,
        typer.Option(
            "--fake-world-size",
            min=1,
            max=32_768,  # PyTorch keeps about 30 kB a fake rank
            help="With --dry-run: build rank 0 of so many ranks by the code that trains, on no memory.",
        ),
    ] = None,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Resume without hashing the checkpoint first.")
    ] = False,
    json: Json = False,
) -> None:
    """Pretrain a model, or go on with a run that was stopped, killed or finished on a smaller budget."""
    import os

    from criadero import config as configuration
    from criadero.errors import UsageError
    from criadero.train.config import RunConfig

    settings = configuration.load(RunConfig, config, overrides or [])
    if dry_run:
        from criadero.cli.dry_run import print_cost

        print_cost(settings, os.environ, device_name=device, fake_world_size=fake_world_size, json=json)
        return
    if device is not None or fake_world_size is not None:
        raise UsageError(
            "--device and --fake-world-size only say what a run would cost",
            hint="add --dry-run; a run takes its device from train.device, its ranks from torchrun or srun",
        )
    _run(settings, os.environ, verify=not no_verify, json=json)


def _run(settings: RunConfig, environ: MutableMapping[str, str], *, verify: bool, json: bool) -> None:
    if settings.profile:
        # Read when torch is first imported: its profiler writes lines of its own to stderr otherwise.
        environ.setdefault("KINETO_LOG_LEVEL", "6")
    from criadero.cli.progress import ProgressDisplay
    from criadero.parallel.launch import launch_from
    from criadero.report.loss_curve import draw_loss_curve
    from criadero.train.loop import train as run_training
    from criadero.train.stop import StopFlag

    launch = launch_from(environ)
    is_first = launch.rank == 0
    if not is_first:
        set_up_logging(quiet=True)
    flag = StopFlag(acknowledge_stop if is_first else None)
    with flag.on_signals() as stop, ProgressDisplay(settings, shown=is_first) as progress:
        result = run_training(settings, launch=launch, stop=stop, hooks=[progress], verify=verify)
    if not is_first:
        return
    summary = {
        "run": str(settings.run.folder),
        "step": result.state.step,
        "tokens": result.state.tokens,
        **result.heldout,
        "joules": result.joules,
        "loss_curve": str(draw_loss_curve(settings.run.folder)),
        "model": str(result.model),
    }
    _print_summary(summary, json=json)


def _print_summary(summary: dict[str, Any], *, json: bool) -> None:
    if json:
        print_json(summary)
        return
    for name, value in summary.items():
        typer.echo(f"{name:24} {value}")
    typer.echo(f"next: criadero generate {summary['model']} 'Once upon a time'")
