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
from types import ModuleType

import typer

from criadero.cli.line_history import LineHistory
from criadero.errors import DataError

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
        history: lines of earlier sessions; new ones are added to it. Used at a terminal only.
    """

    def __init__(self, history: LineHistory) -> None:
        self.at_terminal = sys.stdin is not None and sys.stdin.isatty()
        self._history = history
        self._readline = _set_up_readline(history) if self.at_terminal and sys.stdout.isatty() else None

    def read(self) -> Turn | None:
        """Return the next turn, None at the end of the input.

        Raises:
            KeyboardInterrupt: Ctrl-C; what was begun is dropped.
            DataError: the input is not UTF-8.
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
        try:
            line = sys.stdin.readline()
        except UnicodeDecodeError:
            raise DataError("stdin is not UTF-8", hint="convert it, for example with `iconv`") from None
        return line.removesuffix("\n") if line else None


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
