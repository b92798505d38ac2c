"""What every verb prints with: JSON for programs and log lines on stderr for people."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import typer


def print_json(value: Any) -> None:
    """Print one JSON object on stdout."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def set_up_logging(*, quiet: bool = False) -> None:
    """Send the library's log to stderr, one plain line each; warnings are marked."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PlainFormatter())
    logger = logging.getLogger("criadero")
    logger.handlers = [handler]
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.propagate = False


class _PlainFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        mark = "warning: " if record.levelno >= logging.WARNING else ""
        return mark + record.getMessage()
