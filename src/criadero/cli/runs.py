"""`criadero runs`: lists, compares and follows runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from criadero.cli.output import Json, print_json
from criadero.errors import UsageError

if TYPE_CHECKING:
    from criadero.runs import RunSummary

_FOLLOW_SECONDS = 1.0
_EVENTS = 5  # of one run, the last ones
_LINE_COLUMNS = 110  # a longer line of settings is broken, one run a line
_WIDTH_WITHOUT_TERMINAL = 500  # columns; nothing is cut in a file or a pipe


def runs(
    folder: Annotated[Path, typer.Argument(help="A folder of runs, or one run.")] = Path("runs"),
    compare: Annotated[bool, typer.Option("--compare", help="Also show the settings that differ.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print one run's metrics as they come.")
    ] = False,
    json: Json = False,
) -> None:
    """List runs with their state, loss and speed; compare their settings; follow one."""
    from criadero.runs import differing_settings, find_runs, summarise

    if follow:
        _follow(folder)
        return
    folders = find_runs(folder)
    summaries = [summarise(path) for path in folders]
    differences = differing_settings(folders) if compare else {}
    if json:
        print_json({"runs": [asdict(run) for run in summaries], "differences": differences})
        return
    if not summaries:
        typer.echo(f"no runs in `{folder}`", err=True)
        return
    _print_table(summaries)
    for run in summaries:
        _print_events(run)
    for key, values in differences.items():
        shown = [f"{run.name}={value}" for run, value in zip(summaries, values, strict=True)]
        line = f"{key}: " + ", ".join(shown)
        typer.echo(line if len(line) <= _LINE_COLUMNS else "\n  ".join([f"{key}:", *shown]))


def _print_table(summaries: list[RunSummary]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("run", "state", box=None, pad_edge=False)
    for name in ("step", "tokens", "loss", "held-out\nbits/byte", "tokens/s", "energy"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in summaries:
        table.add_row(
            run.name,
            run.state,
            str(run.step),
            _number(run.tokens, ",.0f"),
            _number(run.loss, ".4f"),
            _number(run.heldout_bits_per_byte, ".4f"),
            _number(run.tokens_per_second, ",.0f"),
            _number(None if run.joules is None else run.joules / 3.6e6, ".4f", " kWh"),
        )
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH_WITHOUT_TERMINAL
    console.print(table)


def _print_events(run: RunSummary) -> None:
    """Print the last things that went wrong in a run and what was done about them."""
    told = [event for event in run.events if event["event"] != "resumed"]
    if len(told) > _EVENTS:
        typer.echo(f"{run.name}: {len(told) - _EVENTS} earlier events are in its events.jsonl")
    for event in told[-_EVENTS:]:
        typer.echo(f"{run.name}: {_describe_event(event)}")


def _describe_event(event: dict[str, Any]) -> str:
    if event["event"] == "rollback":
        passed = event["next_sample"] - event.get("first_sample", event["next_sample"])
        place = f"step {event['step']}: rolled back to step {event['to_step']}"
        return f"{place}, {passed:,} samples are passed over"
    what = {"spike": "the gradient norm was a spike", "skipped": "the update was left out"}
    numbers = f"loss {_number(event.get('loss'), '.4g')}, norm {_number(event.get('gradient_norm'), '.4g')}"
    return f"step {event['step']}: {what.get(event['event'], event['event'])} ({numbers})"


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else format(value, form) + unit


def _follow(folder: Path) -> None:
    """Print each new metrics line until the run is no longer running."""
    import json
    import time

    from criadero.runs import METRICS, find_runs, read_metrics, summarise

    if (inside := find_runs(folder)) and inside != [folder]:
        raise UsageError(f"`{folder}` is a folder of runs", hint=f"name one of them, such as `{inside[-1]}`")
    shown: list[dict[str, Any]] = []
    while True:
        state = summarise(folder).state
        rows = list(read_metrics(folder / METRICS))
        # A roll-back takes lines away and writes others in their place.
        same = next(
            (n for n, (old, new) in enumerate(zip(shown, rows, strict=False)) if old != new), len(shown)
        )
        for row in rows[same:]:
            typer.echo(json.dumps(row))
        shown = rows
        if state != "running":
            return
        time.sleep(_FOLLOW_SECONDS)
