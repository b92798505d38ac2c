"""Templates in wikitext: found by one pass over the braces, replaced by text from the inside out.

Entry point: `expand`. Each `{{name|argument|...}}` is handed to a function that returns its text, inner ones
first; so the pass takes time in proportion to the text, whatever it holds. Braces that close nothing or are
never closed are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

Render: TypeAlias = Callable[[str, "Arguments"], str]

# MediaWiki gives up at 40 too. What is deeper is left out, so that no text is copied more often.
MAX_DEPTH = 40
_MARK = re.compile(r"\{\{+|\}\}+|\[\[|\]\]|\|")
_NAMED = re.compile(r"\s*([^=\[\]{}<>\n]{1,60}?)\s*=(?!=)")


@dataclass(frozen=True)
class Arguments:
    """Arguments of a template, stripped: those by place, in order, and those by name.

    An argument `2=text` counts as the second by place, as in MediaWiki.
    """

    places: tuple[str, ...] = ()
    names: dict[str, str] = field(default_factory=dict)

    def get(self, place: int, default: str = "") -> str:
        """Return an argument by place, counted from 1."""
        return self.places[place - 1] if 0 < place <= len(self.places) else default


@dataclass
class _Open:
    """A template whose closing braces have not come yet."""

    braces: int = 2
    parts: list[list[str]] = field(default_factory=lambda: [[]])
    links: int = 0

    def add(self, text: str) -> None:
        self.parts[-1].append(text)


def expand(text: str, render: Render) -> str:
    """Return `text` with every template replaced by what `render(name, arguments)` returns.

    The name comes with underscores as blanks, otherwise as written. Parameters, `{{{1|default}}}`, become
    their default.
    """
    stack = [_Open(braces=0)]
    position = 0
    for mark in _MARK.finditer(text):
        top = stack[-1]
        if mark.start() > position:
            top.add(text[position : mark.start()])
        position = mark.end()
        token = mark[0]
        if token[0] == "{":
            _open(stack, len(token))
        elif token[0] == "}":
            _close(stack, len(token), render)
        elif token == "|" and len(stack) > 1 and not top.links:
            top.parts.append([])
        else:
            top.links = max(0, top.links + (token == "[[") - (token == "]]"))
            top.add(token)
    stack[-1].add(text[position:])
    return "".join(_unclosed(stack))


def _open(stack: list[_Open], count: int) -> None:
    """Three braces of a run open a parameter if they stand alone, two a template; `{{{{` is two templates."""
    while count >= 2:
        braces = 3 if count == 3 else 2
        stack.append(_Open(braces=braces))
        count -= braces


def _close(stack: list[_Open], count: int, render: Render) -> None:
    while count >= 2 and len(stack) > 1:
        top = stack[-1]
        if top.braces == 3 and count == 2:
            top.braces = 2  # its third brace was a literal one
        count -= top.braces
        stack.pop()
        parts = ["".join(pieces) for pieces in top.parts]
        if len(stack) > MAX_DEPTH:
            continue
        if top.braces == 3:
            stack[-1].add(parts[1] if len(parts) > 1 else "")
        else:
            name, arguments = _arguments(parts)
            stack[-1].add(render(name, arguments))


def _arguments(parts: list[str]) -> tuple[str, Arguments]:
    places: dict[int, str] = {}
    names: dict[str, str] = {}
    count = 0
    for part in parts[1:]:
        named = _NAMED.match(part)
        if named is None:
            count += 1
            places[count] = part.strip()
        elif named[1].isdecimal() and 0 < int(named[1]) <= 99:
            places[int(named[1])] = part[named.end() :].strip()
        else:
            names[named[1]] = part[named.end() :].strip()
    last = max(places, default=0)
    ordered = tuple(places.get(place, "") for place in range(1, last + 1))
    return " ".join(parts[0].replace("_", " ").split()), Arguments(ordered, names)


def _unclosed(stack: list[_Open]) -> list[str]:
    """Return what remains open at the end of the text, without the lines that look like arguments."""
    pieces: list[str] = []
    for depth, frame in enumerate(stack):
        for number, part in enumerate(frame.parts):
            joined = "".join(part)
            if depth and number:  # an argument runs to the end of its line
                joined = joined.partition("\n")[2]
                pieces.append("\n")
            pieces.append(joined)
    return pieces
