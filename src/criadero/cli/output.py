"""What every verb prints with: JSON for programs and log lines on stderr for people."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import sys
import time
from typing import Annotated, Any, Self, TextIO

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
"""The option of every verb whose result a program would read."""

logger = logging.getLogger("criadero")
_SECONDS_BETWEEN_LINES = 5.0
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def print_json(value: Any) -> None:
    """Print one JSON object on stdout."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def print_text(text: str) -> None:
    """Print text as it comes, in UTF-8 whatever the locale says; no control character reaches a terminal."""
    if sys.stdout is None:
        raise OSError(errno.EBADF, "stdout is closed")
    if sys.stdout.isatty():
        text = _CONTROL.sub("\ufffd", text)
    data = text.encode(errors="replace")
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def set_up_logging(*, quiet: bool = False) -> None:
    """Send the library's log to stderr, one plain line each; warnings are marked."""
    handler = _LogHandler(sys.stderr)
    handler.setFormatter(_PlainFormatter())
    logger = logging.getLogger("criadero")
    logger.handlers = [handler]
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.propagate = False


class LiveLine:
    """The last line of a terminal, written in place until something else is printed below it."""

    def __init__(self) -> None:
        self._open = False

    def show(self, text: str) -> None:
        """Put `text` in the place of what was shown before."""
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
        self._open = True

    @property
    def is_open(self) -> bool:
        """Whether the cursor is behind a line that was shown."""
        return self._open

    def end(self) -> None:
        """Leave the line as it is; what comes next begins below it."""
        if self._open:
            sys.stderr.write("\n")
            self._open = False


live_line = LiveLine()


def acknowledge_stop() -> None:
    """Say that the wish to stop has come; for a signal handler, which may have interrupted a write."""
    text = "stopping as soon as this step is done and saved; a second signal ends the process at once"
    start = "\n" if live_line.is_open else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{start}{text}\n".encode())


class LiveDisplay:
    """Used with `with`: what comes after it begins below the live line."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        live_line.end()


class PacedDisplay(LiveDisplay):
    """Shows lines on a terminal in place, elsewhere one every few seconds.

    Args:
        live_seconds: between lines on a terminal.
    """

    def __init__(self, *, live_seconds: float = 0.0) -> None:
        self._live = sys.stderr.isatty() and logger.isEnabledFor(logging.INFO)
        self._seconds = live_seconds if self._live else _SECONDS_BETWEEN_LINES
        self._last = time.monotonic()

    def show_line(self, line: str, *, always: bool = False) -> None:
        """Show a line if what was shown before is old enough."""
        now = time.monotonic()
        if now - self._last < self._seconds and not always:
            return
        self._last = now
        if self._live:
            live_line.show(line)
        else:
            logger.info(line)


def terminal_columns() -> int | None:
    """Return the width of the terminal behind stderr, None if that is not known."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or None  # some terminals say 0
    except OSError:
        return None


def format_seconds(seconds: float) -> str:
    """Return a duration for people: `3 d 04 h`, `2 h 05 min`, `4 min 10 s`, `12 s`."""
    whole = round(seconds)
    for large, small, name, part in ((86400, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s")):
        if whole >= large:
            return f"{whole // large} {name} {whole % large // small:02d} {part}"
    return f"{whole} s"


class _LogHandler(logging.StreamHandler[TextIO]):
    def emit(self, record: logging.LogRecord) -> None:
        live_line.end()
        super().emit(record)


class _PlainFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        mark = "warning: " if record.levelno >= logging.WARNING else ""
        return mark + record.getMessage()
