"""`criadero doctor`: what this machine offers and what is missing."""

from __future__ import annotations

from typing import Annotated

import typer

from criadero.cli.output import print_json


def doctor(json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Check versions, devices, memory, disk, compiler and optional parts."""
    from criadero.doctor import examine

    report = examine()
    if json:
        print_json(report)
        return
    for name, value in report.items():
        typer.echo(f"{name:24} {value}")
