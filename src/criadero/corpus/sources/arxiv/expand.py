r"""User macros expanded to a fixed point, as TeX does it: the value of a macro is read again in its place.

Entry point: `expand`. Definitions take effect in order and end with their group, and are removed. A macro
that comes out of its own body is left as it is; work, in tokens read, is bounded by a multiple of the input,
so that no definition can make a paper endless. Programs (`\if...`, `\expandafter`, internals of packages)
are not run: their macros stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from criadero.corpus.sources.arxiv.macros import (
    DEFINERS,
    PREFIXES,
    Definition,
    Frozen,
    Macro,
    is_structure,
    read_definition,
)
from criadero.corpus.sources.arxiv.tokens import BLANK, is_paragraph, is_word

MAX_GROWTH = 8
MAX_DEPTH = 16
_FREE_TOKENS = 1 << 16

# LaTeX's own commands that take one or two arguments, with or without braces.
_TAKE_ONE = """
    sqrt hat widehat bar tilde widetilde vec dot ddot dddot check breve acute grave mathring not cancel
    overline underline overbrace underbrace overrightarrow overleftarrow boldsymbol pmb bm operatorname ket
    mathbf mathrm mathit mathsf mathtt mathcal mathbb mathfrak mathscr ensuremath mbox hbox fbox emph
    text textbf textit textrm textsf texttt textsc textsl textup textnormal sout slashed bra
"""
_TAKE_TWO = "frac dfrac tfrac cfrac binom dbinom tbinom stackrel overset underset braket textcolor"
_ARGUMENTS = {f"\\{name}": 1 for name in _TAKE_ONE.split()} | {f"\\{name}": 2 for name in _TAKE_TWO.split()}
# Where `xspace` adds no space.
_NO_SPACE_BEFORE = frozenset("{}.!,:;?/'~)-]") | BLANK
_NO_XSPACE = frozenset({"\\/", "\\ ", "\\footnote", "\\footnotemark", "\\xspace"})
_GROUPING = frozenset("{}[]^_")
# Tokens that are one argument however long they are.
_WHOLE = frozenset("\\#")

_Chain = frozenset[str]
_Segment = tuple[Sequence[str], _Chain]
_T = TypeVar("_T")


class ExpansionLimit(Exception):
    """The macros of a paper want more work than a paper can need."""


def expand(tokens: Sequence[str]) -> list[str]:
    """Return the tokens with all macros expanded and their definitions removed.

    Raises:
        ExpansionLimit: macros are nested deeper than `MAX_DEPTH`, or make more work than `MAX_GROWTH` times
            reading the tokens.
    """
    return _Expander(tokens).run()


@dataclass(slots=True)
class _Frame:
    """Tokens being read, and the macros whose bodies they came out of."""

    tokens: Sequence[str]
    chain: _Chain
    position: int = 0


@dataclass(slots=True)
class _Group:
    """What holds again after a brace or bracket closes."""

    expected: int
    brackets: bool = False
    meanings: dict[str, Macro | None] | None = None


class _Expander:
    def __init__(self, tokens: Sequence[str]) -> None:
        self._work_left = MAX_GROWTH * len(tokens) + _FREE_TOKENS
        self._frames = [_Frame(tokens, frozenset())]
        self._chain: _Chain = frozenset()  # of the token read last
        self._macros: dict[str, Macro] = {}
        self._groups: list[_Group] = []
        self._out: list[str] = []
        self._expected = 0  # arguments that the last command still wants
        self._command = False  # whether the last token was a command that wants arguments
        self._global = False
        self._tape: list[str] | None = None  # tokens to give back when a try fails

    def run(self) -> list[str]:
        macros = self._macros
        while (token := self.next()) is not None:
            if token[0] != "\\":
                self._emit(token)
            elif token in macros and type(token) is not Frozen:
                self._expand(token, macros[token])
            elif token in DEFINERS or token in PREFIXES:
                self._define(token)
            elif token == "\\xspace" and self._chain:
                self._space()
            else:
                self._emit(token)
        return self._out

    # What definitions are read from (`macros.Source`).

    def next(self) -> str | None:
        """Return the next token."""
        frames = self._frames
        while frames:
            frame = frames[-1]
            if frame.position < len(frame.tokens):
                token = frame.tokens[frame.position]
                frame.position += 1
                self._chain = frame.chain
                self._work_left -= 1
                if self._work_left < 0:
                    raise ExpansionLimit(f"more than {MAX_GROWTH} times the work of reading the paper")
                if self._tape is not None:
                    self._tape.append(token)
                return token
            frames.pop()
        return None

    def peek(self) -> str | None:
        """Return the next token and leave it."""
        frames = self._frames
        while frames:
            if frames[-1].position < len(frames[-1].tokens):
                return frames[-1].tokens[frames[-1].position]
            frames.pop()
        return None

    def skip_blanks(self) -> None:
        """Pass blanks that do not end a paragraph."""
        while (token := self.peek()) is not None and token[0] in BLANK and not is_paragraph(token):
            self.next()

    def group(self) -> list[str] | None:
        """Return what is between the braces that begin here, None where there are none."""
        return _joined(self._between("{", "}"))

    def brackets(self) -> list[str] | None:
        """Return what is between the brackets that begin here, None where there are none."""
        return _joined(self._between("[", "]"))

    def meaning(self, name: str) -> Macro | None:
        """Return what a name means now."""
        return self._macros.get(name)

    # Expansion.

    def _expand(self, name: str, macro: Macro) -> None:
        chain = self._chain
        if not macro.expands or name in chain:
            self._emit(name)
            return
        if len(chain) >= MAX_DEPTH:
            raise ExpansionLimit(f"macros nested more than {MAX_DEPTH} deep, at {name}")
        inner = chain | {name}
        arguments = self._try(lambda: self._arguments(macro, inner))
        if arguments is None:
            self._emit(name)
            return
        if not macro.parameters and is_word(name):
            self._end_of_word(macro)
        if self._expected and not macro.is_one_token():
            self._emit("{")
            self._frames.append(_Frame(["}"], frozenset()))
        for piece in reversed(macro.pieces):
            for tokens, where in (
                reversed(arguments[piece - 1]) if isinstance(piece, int) else [(piece, inner)]
            ):
                self._frames.append(_Frame(tokens, where))
                self._work_left -= 1

    def _end_of_word(self, macro: Macro) -> None:
        """Pass what only ends the name of a macro: blanks, or an empty group."""
        if self.peek() == "{":
            last = macro.last_token()
            if last == "\\xspace" or not (last and is_word(last)):
                self._try(self._empty_group)
        else:
            self.skip_blanks()

    def _empty_group(self) -> bool | None:
        self.next()
        return True if self.next() == "}" else None

    def _arguments(self, macro: Macro, inner: _Chain) -> list[list[_Segment]] | None:
        found: list[list[_Segment]] = []
        for number in range(macro.parameters):
            self.skip_blanks()
            if number == 0 and macro.default is not None:
                given = self.peek() == "["
                default: list[_Segment] = [(macro.default, inner)]
                inside = self._between("[", "]") if given else default
            else:
                inside = self._argument()
            if inside is None:
                return None
            found.append(inside)
        return found

    def _argument(self) -> list[_Segment] | None:
        """Read a group, or the next control sequence or character."""
        token = self.peek()
        if token is None or token == "}" or token[0] in BLANK:
            return None
        if token == "{":
            return self._between("{", "}")
        self.next()
        if token[0] in _WHOLE or len(token) == 1:
            return [([token], self._chain)]
        rest = token[1:].lstrip(" \t")
        blanks = token[1 : len(token) - len(rest)]
        self._frames.append(_Frame([part for part in (blanks, rest) if part], self._chain))
        if self._tape is not None:
            self._tape[-1] = token[0]
        return [([token[0]], self._chain)]

    def _between(self, opening: str, closing: str) -> list[_Segment] | None:
        """Read from `opening` to its `closing`; each part of it keeps the chain of where it came from."""
        if self.peek() != opening:
            return None
        self.next()
        found: list[_Segment] = []
        part: list[str] = []
        chain: _Chain | None = None
        depth = 0
        while (token := self.next()) is not None:
            if depth == 0 and token == closing:
                return found
            depth += (token == "{") - (token == "}")
            if depth < 0:
                return None
            if self._chain is not chain:
                part, chain = [], self._chain
                found.append((part, chain))
            part.append(token)
        return None

    def _try(self, read: Callable[[], _T | None]) -> _T | None:
        """Return what `read` returns; where that is None, nothing has been read."""
        chain = self._chain
        self._tape = []
        result = read()
        tape, self._tape = self._tape, None
        if result is None:
            self._frames.append(_Frame(tape, chain))
        return result

    # Definitions.

    def _define(self, token: str) -> None:
        if token in PREFIXES:
            following = self.peek()
            if following in DEFINERS or following in PREFIXES:
                self._global = self._global or token == "\\global"
            else:
                self._emit(token)
            return
        definition = self._try(lambda: read_definition(token, self))
        if definition is None:
            self._emit(token)
            following = self.peek()
            if following is not None and following[0] == "\\":
                # The name of what could not be defined is no use of it.
                self.next()
                self._emit(following)
        else:
            self._apply(definition)
            self.skip_blanks()
        self._global = False

    def _apply(self, definition: Definition) -> None:
        name = definition.name
        if is_structure(name) or (definition.if_new and name in self._macros):
            return
        if definition.everywhere or self._global:
            self._work_left -= len(self._groups)
            for group in self._groups:
                (group.meanings or {}).pop(name, None)
        else:
            innermost = next((group for group in reversed(self._groups) if not group.brackets), None)
            if innermost is not None:
                innermost.meanings = innermost.meanings or {}
                innermost.meanings.setdefault(name, self._macros.get(name))
        self._mean(name, definition.macro)

    def _mean(self, name: str, macro: Macro | None) -> None:
        if macro is None:
            self._macros.pop(name, None)
        else:
            self._macros[name] = macro

    # What comes out.

    def _space(self) -> None:
        r"""Do what `\\xspace` does at the end of a macro."""
        following = self.peek()
        if following is not None and following[0] not in _NO_SPACE_BEFORE and following not in _NO_XSPACE:
            self._emit(" ")

    def _emit(self, token: str) -> None:
        """Write a token, and keep count of groups and of arguments that a command still wants."""
        self._out.append(token)
        first = token[0]
        if first in BLANK:
            if self._expected and is_paragraph(token):
                self._expected = 0
        elif first == "\\":
            wanted = _ARGUMENTS.get(token, 0)
            self._command = wanted > 0
            self._expected = wanted or max(self._expected - 1, 0)
        elif token in _GROUPING:
            self._emit_grouping(token)
            self._command = False
        elif self._expected:
            self._expected = max(self._expected - len(token.replace(" ", "")), 0)
            self._command = False

    def _emit_grouping(self, token: str) -> None:
        groups = self._groups
        if token in {"^", "_"}:
            self._expected = 1
        elif token == "{":
            groups.append(_Group(max(self._expected - 1, 0)))
            self._expected = 0
        elif token == "}":
            while groups and groups[-1].brackets:
                groups.pop()
            self._close(groups.pop() if groups else _Group(0))
        elif token == "[" and self._command:
            groups.append(_Group(self._expected, brackets=True))
            self._expected = 0
        elif token == "]" and groups and groups[-1].brackets:
            self._close(groups.pop())
        else:
            self._expected = max(self._expected - 1, 0)

    def _close(self, group: _Group) -> None:
        self._expected = group.expected
        for name, macro in (group.meanings or {}).items():
            self._mean(name, macro)


def _joined(segments: list[_Segment] | None) -> list[str] | None:
    return None if segments is None else [token for tokens, _ in segments for token in tokens]
