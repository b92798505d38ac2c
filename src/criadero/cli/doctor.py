"""`criadero doctor`: what this machine offers and what is missing."""

from __future__ import annotations

from typing import Any

import typer

from criadero.cli.output import Json, print_json
from criadero.files import format_bytes


def doctor(json: Json = False) -> None:
    """Check versions, devices, memory, disk, compiler and optional parts."""
    from criadero.doctor import examine

    report = examine()
    if json:
        print_json(report)
        return
    for name, value in report.items():
        typer.echo(f"{name:24} {_for_people(name, value)}")


def _for_people(name: str, value: Any) -> str:
    if name.endswith("_bytes"):
        return format_bytes(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return "none" if value is None else str(value)
