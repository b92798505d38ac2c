"""What one can tell the chat program itself: /help, /system, /undo and so on.

Entry point: `Commands.run`. Each command is a method; its first line of documentation is its line in /help.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from criadero.errors import UsageError
from criadero.files import atomic_write

if TYPE_CHECKING:
    from criadero.generate.chat import Conversation

_OTHER_NAMES = {
    "new": "clear",
    "exit": "quit",
    "bye": "quit",
    "h": "help",
    "q": "quit",
    "regenerate": "retry",
}


class Commands:
    """The commands of one session.

    Args:
        conversation: what they act on.
        retry: answers the last turn again.
    """

    def __init__(self, conversation: Conversation, retry: Callable[[], None]) -> None:
        self._conversation = conversation
        self._retry = retry
        self._saved: set[Path] = set()
        self.wants_to_leave = False
        self._known: dict[str, tuple[str, str, Callable[[str], None]]] = {
            "help": ("", "this list", self._help),
            "clear": ("", "forget every turn; the system instruction stays", self._clear),
            "system": (
                "TEXT",
                "set the instruction before the first turn; without TEXT, show it",
                self._system,
            ),
            "undo": ("", "forget the last turn and its answer", self._undo),
            "retry": ("", "have the last turn answered again", self._retry_turn),
            "save": ("FILE", "write the conversation as JSON lines", self._save),
            "quit": ("", "leave; so does Ctrl-D", self._quit),
        }

    def run(self, name: str, rest: str) -> None:
        """Run a command.

        Raises:
            UsageError: there is no such command, with the one that was probably meant.
        """
        known = self._known.get(_OTHER_NAMES.get(name, name))
        if known is None:
            near = difflib.get_close_matches(name, [*self._known, *_OTHER_NAMES], n=1)
            raise UsageError(
                f"there is no command `/{name}`" + (f", did you mean `/{near[0]}`?" if near else ""),
                hint="/help lists them; a line that begins with a blank is said to the model",
            )
        argument, _, action = known
        if rest and not argument:
            raise UsageError(
                f"`/{name}` takes nothing behind it, found `{rest}`", hint="/help lists commands"
            )
        action(rest)

    def _help(self, _rest: str) -> None:
        for name, (argument, meaning, _) in self._known.items():
            typer.echo(f"  {f'/{name} {argument}':<14} {meaning}", err=True)
        typer.echo(
            "A backslash at the end of a line goes on in the next; so does a block between lines of "
            '""".\nCtrl-C stops an answer, Ctrl-D leaves.',
            err=True,
        )

    def _clear(self, _rest: str) -> None:
        self._conversation.clear()
        typer.echo("(a new conversation)", err=True)

    def _system(self, text: str) -> None:
        if text:
            self._conversation.system = text
        shown = self._conversation.system
        typer.echo("(no system instruction)" if shown is None else f"(system instruction: {shown})", err=True)

    def _undo(self, _rest: str) -> None:
        text = self._conversation.undo()
        typer.echo("(there is nothing to undo)" if text is None else f"(forgotten: {text})", err=True)

    def _retry_turn(self, _rest: str) -> None:
        self._retry()

    def _save(self, name: str) -> None:
        if not name:
            raise UsageError("`/save` needs a file to write", hint="such as `/save conversation.jsonl`")
        path = Path(name).expanduser()
        if path.exists() and path.resolve() not in self._saved:
            raise UsageError(f"`{path}` exists already", hint="choose another name; nothing was overwritten")
        rows = [{"role": turn.role, "content": turn.content} for turn in self._conversation.messages]
        try:
            with atomic_write(path) as stream:
                stream.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
        except (OSError, ValueError) as problem:
            raise UsageError(f"`{path}` could not be written: {problem}", hint="try another file") from None
        self._saved.add(path.resolve())
        typer.echo(f"({len(rows)} messages in {path})", err=True)

    def _quit(self, _rest: str) -> None:
        self.wants_to_leave = True
