"""Reads what a person says, or a program writes, turn by turn.

Entry point: `Turns`. A turn is a line; a backslash at its end goes on in the next one, and whatever stands
between two lines of three double quotes is one turn as it is. At a terminal lines are edited and recalled
with the arrow keys where Python has readline.
"""

from __future__ import annotations

import contextlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import typer

from criadero.cli.line_history import LineHistory

FENCE = '"""'
PROMPT = "> "
PROMPT_WITHIN = "... "


_COMMAND = re.compile(r"/([A-Za-z]\w*)(?:\s+(.*))?", re.DOTALL)


@dataclass(frozen=True)
class Turn:
    """What was said in one go."""

    text: str
    is_block: bool = False
    """Whether it stood between fences, and is no command whatever it begins with."""

    @property
    def command(self) -> tuple[str, str] | None:
        """The name and the rest of a command such as `/save FILE`; None for what the model is to read."""
        found = None if self.is_block else _COMMAND.fullmatch(self.text)
        return found and (found[1].lower(), (found[2] or "").strip())


class Turns:
    """Turns from stdin.

    Args:
        history_path: lines of earlier sessions, to which new ones are added; None for none. Used at a
            terminal only.
    """

    def __init__(self, history_path: Path | None) -> None:
        self.at_terminal = sys.stdin is not None and sys.stdin.isatty()
        is_edited = self.at_terminal and sys.stdout is not None and sys.stdout.isatty()
        self._history = LineHistory(history_path if is_edited else None)
        self._readline = _set_up_readline(self._history) if is_edited else None

    def read(self) -> Turn | None:
        """Return the next turn, None at the end of the input; bytes that are not UTF-8 are lone surrogates.

        Raises:
            KeyboardInterrupt: Ctrl-C; what was begun is dropped.
        """
        line = self._line(PROMPT)
        if line is None:
            return None
        if line.strip() == FENCE:
            return self._block()
        lines = [line]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            following = self._line(PROMPT_WITHIN)
            if following is None:
                break
            lines.append(following)
        return Turn("\n".join(lines).rstrip())

    def _block(self) -> Turn:
        """Return the lines up to the closing fence or the end of the input."""
        lines: list[str] = []
        while (line := self._line(PROMPT_WITHIN)) is not None and line.strip() != FENCE:
            lines.append(line)
        return Turn("\n".join(lines), is_block=True)

    def _line(self, prompt: str) -> str | None:
        if self._readline is None:
            return self._plain_line(prompt)
        try:
            line = input(prompt)
        except EOFError:
            typer.echo()
            return None
        if self._history.add(line):
            self._readline.add_history(line)
        return line

    def _plain_line(self, prompt: str) -> str | None:
        if sys.stdin is None:
            return None
        if self.at_terminal:
            sys.stderr.write(prompt)
            sys.stderr.flush()
        line = sys.stdin.buffer.readline().decode(errors="surrogateescape")
        return line.removesuffix("\n").removesuffix("\r") if line else None


def _set_up_readline(history: LineHistory) -> ModuleType | None:
    """Give `input` line editing and the lines of before; None where Python came without it."""
    try:
        import readline
    except ImportError:
        return None
    with contextlib.suppress(AttributeError):  # not in every replacement of GNU readline
        readline.set_auto_history(False)
    for line in history.lines:
        readline.add_history(line)
    return readline
