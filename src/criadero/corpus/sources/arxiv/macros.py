r"""Definitions of macros: what `\newcommand` and its kin say, as data.

Entry point: `read_definition`, called by `criadero.corpus.sources.arxiv.expand` where it meets one. Known are
`\newcommand`, `\renewcommand`, `\providecommand`, `\DeclareRobustCommand` and `\DeclareMathOperator` with and
without star, `\def` and its kin with parameters that nothing delimits, and `\let`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from criadero.corpus.sources.arxiv.tokens import BLANK, is_paragraph

Pieces: TypeAlias = tuple[list[str] | int, ...]

PREFIXES = frozenset({"\\long", "\\global", "\\outer", "\\protected"})
_COMMANDS = frozenset({"\\newcommand", "\\renewcommand", "\\providecommand", "\\DeclareRobustCommand"})
_DEFS = frozenset({"\\def", "\\gdef", "\\edef", "\\xdef"})
_OPERATOR = "\\DeclareMathOperator"
DEFINERS = _COMMANDS | _DEFS | {_OPERATOR, "\\let"}

# Tests, token lists and internals of packages: only TeX itself can say what these print.
_PROGRAM = re.compile(
    r"\\(if[a-zA-Z@]+|else|fi|or|loop|repeat|expandafter|csname|futurelet|afterassignment|catcode|relax@.*)$"
    r"|\\[a-zA-Z]*@[a-zA-Z@]*$"
)
# The structure that sections, references and the bibliography are found by.
_STRUCTURE_NAMES = """
    begin end part chapter section subsection subsubsection paragraph subparagraph appendix item label ref
    cite caption footnote bibliography bibliographystyle thebibliography documentclass input include par \\
"""
_STRUCTURE = frozenset(f"\\{name}" for name in _STRUCTURE_NAMES.split())
_MAX_PARAMETER_TOKENS = 40


class Frozen(str):
    """A control sequence that `let` has given another name: it is what it was before any definition."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Macro:
    """A macro.

    Attributes:
        parameters: how many arguments it takes.
        default: of the first argument, which is then optional, in brackets.
        pieces: of its body; a number stands for that argument.
        expands: False for a program, or where arguments end in ways that are not known here.
    """

    parameters: int
    default: list[str] | None
    pieces: Pieces
    expands: bool = True

    def is_one_token(self) -> bool:
        """Return whether the value is one character, one control sequence or one group."""
        if self.parameters or len(self.pieces) != 1 or isinstance(self.pieces[0], int):
            return False
        body = self.pieces[0]
        if len(body) == 1:
            return len(body[0]) == 1 or body[0][0] == "\\"
        return body[0] == "{" and _closes_at(body) == len(body) - 1

    def last_token(self) -> str:
        """Return the last token of the body, empty where that is an argument or nothing."""
        return self.pieces[-1][-1] if self.pieces and not isinstance(self.pieces[-1], int) else ""


@dataclass(frozen=True, slots=True)
class Definition:
    """What a definition does: `name` means `macro` from here on; None makes it undefined.

    Attributes:
        name: with its backslash.
        macro: the meaning; None for none.
        everywhere: also after the group that the definition is in.
        if_new: only where the name has no meaning yet.
    """

    name: str
    macro: Macro | None
    everywhere: bool = False
    if_new: bool = False


class Source(Protocol):
    """Where the tokens of a definition are read from."""

    def next(self) -> str | None:
        """Return the next token."""

    def peek(self) -> str | None:
        """Return the next token and leave it."""

    def skip_blanks(self) -> None:
        """Pass blanks that do not end a paragraph."""

    def group(self) -> list[str] | None:
        """Return what is between the braces that begin here, None where there are none."""

    def brackets(self) -> list[str] | None:
        """Return what is between the brackets that begin here, None where there are none."""

    def meaning(self, name: str) -> Macro | None:
        """Return what a name means now."""


def read_definition(definer: str, source: Source) -> Definition | None:
    """Read what follows a control word of `DEFINERS`; None where that is no definition."""
    if definer in _DEFS:
        return _read_def(definer, source)
    if definer == "\\let":
        return _read_let(source)
    starred = _skip_star(source)
    name = _read_name(source)
    if name is None:
        return None
    if definer == _OPERATOR:
        source.skip_blanks()
        text = source.group()
        if text is None:
            return None
        star = ["*"] if starred else []
        return Definition(name, Macro(0, None, (["\\operatorname", *star, "{", *text, "}"],)))
    return _read_command(definer, name, source)


def is_structure(name: str) -> bool:
    """Return whether the name keeps the meaning LaTeX gives it, whatever a paper makes of its looks."""
    return name in _STRUCTURE


def _read_command(definer: str, name: str, source: Source) -> Definition | None:
    source.skip_blanks()
    count = source.brackets()
    default = None
    if count is not None:
        source.skip_blanks()
        default = source.brackets()
        source.skip_blanks()
    number = "".join(count).strip() if count is not None else "0"
    body = _read_body(source)
    if body is None or len(number) != 1 or number not in "0123456789":
        return None
    return Definition(name, _macro(int(number), default, body), if_new=definer == "\\providecommand")


def _read_def(definer: str, source: Source) -> Definition | None:
    name = _read_control(source)
    if name is None:
        return None
    parameters: list[str] = []
    while (token := source.peek()) != "{":
        if token is None or token == "}" or is_paragraph(token) or len(parameters) > _MAX_PARAMETER_TOKENS:
            return None
        parameters.append(token)
        source.next()
    body = source.group()
    if body is None:
        return None
    plain = [token for token in parameters if token[0] not in BLANK]
    known = plain == [f"#{number}" for number in range(1, len(plain) + 1)]
    macro = _macro(len(plain), None, body) if known else Macro(0, None, (), expands=False)
    return Definition(name, macro, everywhere=definer in {"\\gdef", "\\xdef"})


def _read_let(source: Source) -> Definition | None:
    name = _read_control(source)
    if name is None:
        return None
    source.skip_blanks()
    if source.peek() == "=":
        source.next()
        source.skip_blanks()
    target = _read_control(source)
    if target is None:
        return None
    if target in {"\\undefined", "\\@undefined"}:
        return Definition(name, None)
    if target == "\\relax":
        return Definition(name, Macro(0, None, ()))
    return Definition(name, source.meaning(target) or Macro(0, None, ([Frozen(target)],)))


def _macro(parameters: int, default: list[str] | None, body: Sequence[str]) -> Macro:
    pieces: list[list[str] | int] = []
    for token in body:
        if token[0] == "#" and len(token) == 2 and token[1].isdigit() and int(token[1]) <= parameters:
            pieces.append(int(token[1]))
        else:
            if not pieces or isinstance(pieces[-1], int):
                pieces.append([])
            text = pieces[-1]
            assert isinstance(text, list)
            # A definition inside of a body doubles the # of its own parameters.
            text.append(token[1:] if token.startswith("##") else token)
    expands = not any(_PROGRAM.match(token) for token in body if token[0] == "\\")
    return Macro(parameters, default, tuple(pieces), expands)


def _read_body(source: Source) -> list[str] | None:
    source.skip_blanks()
    if source.peek() == "{":
        return source.group()
    token = source.next()
    return [token] if token is not None and token[0] == "\\" else None


def _read_name(source: Source) -> str | None:
    r"""Read `\name` or `{\name}`."""
    source.skip_blanks()
    if source.peek() != "{":
        return _read_control(source)
    inside = [token for token in source.group() or () if token[0] not in BLANK]
    return inside[0] if len(inside) == 1 and inside[0][0] == "\\" else None


def _read_control(source: Source) -> str | None:
    source.skip_blanks()
    token = source.next()
    return token if token is not None and token[0] == "\\" and len(token) > 1 else None


def _skip_star(source: Source) -> bool:
    source.skip_blanks()
    starred = source.peek() == "*"
    if starred:
        source.next()
    return starred


def _closes_at(body: Sequence[str]) -> int:
    depth = 0
    for index, token in enumerate(body):
        depth += (token == "{") - (token == "}")
        if depth == 0:
            return index
    return -1
