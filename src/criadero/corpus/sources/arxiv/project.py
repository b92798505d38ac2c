r"""The files of one paper as one LaTeX text: main file found, inputs in their places, comments gone.

Entry point: `assemble`. Followed are `\input`, `\include`, `\subfile`, `\import` and `\subimport`, to a depth
and a size, and never around in a circle.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from criadero.corpus.sources.arxiv import sweave
from criadero.corpus.sources.arxiv.decode import declared_encoding, decode
from criadero.corpus.sources.arxiv.tokens import BLANK, environment_at, lex, render

TEX_SUFFIXES = (".tex", ".ltx", ".latex", ".rnw", ".snw")
_TRIED = ("", ".tex", ".ltx", ".latex", ".Rnw", ".rnw")
_INPUTS = frozenset({"\\input", "\\include", "\\subfile", "\\subfileinclude"})
_IMPORTS = frozenset({"\\import", "\\subimport", "\\inputfrom", "\\includefrom"})
_USUAL_NAMES = ("main", "ms", "paper", "article")
_MAX_DEPTH = 16
_MAX_TOKENS = 1 << 23
_MAX_NAME_TOKENS = 40
_MAX_MISSING = 100
_NO_TESTS = frozenset({"\\iff", "\\ifthenelse"})


@dataclass(frozen=True)
class Paper:
    """A paper as one text.

    Attributes:
        text: LaTeX without comments, inputs in their places.
        main: name of the main file.
        files: names of all files that are in the text, the main one first.
        missing: names that were asked for and are not there.
    """

    text: str
    main: str
    files: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Failure:
    """Why a paper has no text.

    Attributes:
        reason: `withdrawn`, `no_main_file` or `too_long`.
        detail: what was found, for people.
    """

    reason: str
    detail: str = ""


def assemble(files: Mapping[str, bytes]) -> Paper | Failure:
    """Return the paper whose files are given, by name."""
    sources = {name: data for name, data in files.items() if name.lower().endswith(TEX_SUFFIXES)}
    if not sources and len(files) == 1:
        sources = dict(files)
    live = {name: data for name, data in sources.items() if not data.lstrip().startswith(b"%auto-ignore")}
    if sources and not live:
        return Failure("withdrawn", "all TeX files begin with %auto-ignore")
    main = _find_main(live, files)
    if main is None:
        return Failure("no_main_file", f"{len(live)} TeX files")
    inliner = _Inliner(files, declared_encoding(files[main]))
    try:
        inliner.inline(main, posixpath.dirname(main))
    except _TooLong:
        return Failure("too_long", f"more than {_MAX_TOKENS:,} tokens")
    return Paper(render(inliner.out), main, tuple(inliner.used), tuple(inliner.missing))


def _find_main(sources: Mapping[str, bytes], files: Mapping[str, bytes]) -> str | None:
    """Return the file a TeX run begins with: named by the author, or by what it declares."""
    for line in files.get("00README.XXX", b"").decode("latin-1").splitlines():
        name, _, role = line.partition(" ")
        if role.strip() == "toplevelfile" and name in sources:
            return name
    if len(sources) == 1:
        return next(iter(sources))
    found = {name: _declares(data) for name, data in sources.items()}
    best = max(found.values(), default=0)
    if best == 0:
        return None
    candidates = sorted(name for name, rank in found.items() if rank == best)
    usual = [n for n in candidates if posixpath.splitext(posixpath.basename(n))[0].lower() in _USUAL_NAMES]
    return max(usual or candidates, key=lambda name: len(sources[name]))


def _declares(data: bytes) -> int:
    """Return 2 for a class and a document, 1 for a document whose class is elsewhere, 0 for neither."""
    if b"\\begin" not in data:
        return 0
    tokens = lex(decode(data, None))
    classes = [i for i, token in enumerate(tokens) if token in {"\\documentclass", "\\documentstyle"}]
    part = any(_class_name(tokens, index) in {"subfiles", "standalone"} for index in classes)
    document = any(
        token == "\\begin" and environment_at(tokens, index) == "document"
        for index, token in enumerate(tokens)
    )
    return 0 if part or not document else 1 + bool(classes)


def _class_name(tokens: Sequence[str], index: int) -> str:
    for at in range(index + 1, min(index + _MAX_NAME_TOKENS, len(tokens) - 1)):
        if tokens[at] == "{":
            return tokens[at + 1]
    return ""


class _TooLong(Exception):
    """Inputs of inputs of inputs."""


@dataclass
class _Inliner:
    files: Mapping[str, bytes]
    encoding: str | None
    out: list[str] = field(default_factory=list)
    used: dict[str, None] = field(default_factory=dict)
    missing: dict[str, None] = field(default_factory=dict)
    _lexed: dict[str, Sequence[str]] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list)

    def inline(self, name: str, folder: str) -> None:
        """Append a file with all it inputs; `folder` is what names in it are relative to."""
        tokens = self._tokens(name)
        self.used[name] = None
        self._open.append(name)
        index = 0
        while index < len(tokens):
            token = tokens[index]
            index += 1
            asked = None
            if token in _INPUTS or token in _IMPORTS:
                asked = _asked(tokens, index, 2 if token in _IMPORTS else 1)
            if asked is None:
                self._append(token)
                continue
            index, names = asked
            self._follow(token, names, folder)
            if names[-1].rest:
                self._append(names[-1].rest)
        self._open.pop()

    def _append(self, token: str) -> None:
        self.out.append(token)
        if len(self.out) > _MAX_TOKENS:
            raise _TooLong

    def _follow(self, command: str, names: Sequence[_Name], folder: str) -> None:
        name = names[-1].text
        if len(names) == 2:
            inside = names[0].text
            folder = posixpath.join(folder if command.startswith("\\sub") else "", inside)
        found = self._find(name, folder)
        if found is None:
            if len(self.missing) < _MAX_MISSING:
                self.missing[posixpath.join(folder, name)[:200]] = None
        elif found not in self._open and len(self._open) < _MAX_DEPTH:
            around = "\n\n" if command in {"\\include", "\\includefrom"} else "\n"
            self._append(around)
            self.inline(found, folder)
            self._append(around)

    def _find(self, name: str, folder: str) -> str | None:
        for base in dict.fromkeys((folder, posixpath.dirname(next(iter(self.used))))):
            for suffix in _TRIED:
                path = posixpath.normpath(posixpath.join(base, name + suffix))
                if path in self.files:
                    return path
        return None

    def _tokens(self, name: str) -> Sequence[str]:
        if name not in self._lexed:
            text = decode(self.files[name], self.encoding)
            if name.lower().endswith(sweave.SUFFIXES):
                text = sweave.without_chunks(text)
            tokens = _without_hidden(lex(text))
            self._lexed[name] = _part(tokens) if self._open else tokens
        return self._lexed[name]


@dataclass(frozen=True)
class _Name:
    """A file name, and what stood behind it in the same token."""

    text: str
    rest: str = ""


def _asked(tokens: Sequence[str], index: int, count: int) -> tuple[int, list[_Name]] | None:
    r"""Return the index after the `count` names that a command is followed by, and the names."""
    names: list[_Name] = []
    for _ in range(count):
        while index < len(tokens) and tokens[index][0] in BLANK:
            index += 1
        end = index
        if index < len(tokens) and tokens[index] == "{":
            while end < len(tokens) and end - index < _MAX_NAME_TOKENS and tokens[end] != "}":
                end += 1
            if end == len(tokens) or tokens[end] != "}":
                return None
            names.append(_Name("".join(tokens[index + 1 : end]).strip()))
            index = end + 1
        else:
            while end < len(tokens) and end - index < _MAX_NAME_TOKENS and tokens[end][0] not in "\\{} \n\t":
                end += 1
                if " " in tokens[end - 1]:
                    break
            text, _, rest = "".join(tokens[index:end]).partition(" ")
            if not text:
                return None
            names.append(_Name(text, rest.lstrip()))
            index = end
    return index, names


def _part(tokens: Sequence[str]) -> Sequence[str]:
    """Return what a file has to say where another one takes it in: of a subfile, only its document."""
    start = 0
    for index, token in enumerate(tokens):
        if token in {"\\begin", "\\end"} and environment_at(tokens, index) == "document":
            if token == "\\end":
                return tokens[start:index]
            start = index + 4
    return tokens[start:]


def _without_hidden(tokens: list[str]) -> list[str]:
    r"""Return the tokens up to `\endinput`, without what is between `\iffalse` and its `\else` or `\fi`."""
    if "\\endinput" in tokens:
        tokens = tokens[: tokens.index("\\endinput")]
    if "\\iffalse" not in tokens:
        return tokens
    kept: list[str] = []
    depth = 0  # of tests that are open, from a false one on
    for token in tokens:
        if depth == 0:
            depth = int(token == "\\iffalse")
            if depth == 0:
                kept.append(token)
        elif token.startswith("\\if") and token not in _NO_TESTS:
            depth += 1
        elif token == "\\fi" or (token == "\\else" and depth == 1):
            depth -= 1
    # Never closed: TeX stops there, and what was meant cannot be known.
    return tokens if depth else kept
