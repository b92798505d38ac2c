"""Licence headers taken off source files, and nothing else.

Entry points: `make_header` for the stage of the recipe, `strip_header` for one text, `leading_comments` for
what it looks at: the comments before the first code, in the file's own comment syntax. A shebang, a line that
declares the encoding, `<?xml ...?>` and `<?php` stay and do not end that run. A comment goes only if a line
of it speaks of copyright or a licence; of comments by line only the paragraphs that do and those between.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from criadero.corpus.document import Document
from criadero.corpus.engine.stage import DocumentFunction
from criadero.corpus.sources.github.languages import BY_LANGUAGE, Comments

# Each is looked for in single lines, so that taking lines away never makes a new match.
_LEGAL = re.compile(
    r"""copyright|©|\(c\)\ *(19|20)\d\d|all\ rights\ reserved|spdx-
    |\blicen[cs]ed\ (under|to|by)\b|\bunder\ the\ (terms|[\w\ .+-]{0,40}licen[cs]e)\b|@licen[cs]e\b
    |\blicen[cs]e:|\blicen[cs]es/licen[cs]e|\bsee\ (the\ )?(file\ )?(licen[cs]e|copying)\b
    |\blicen[cs]e\ that\ can\ be\ found\b|\bpermission\ is\ hereby\b|\bredistribution\ and\ use\b
    |\bredistributions\ (of|in)\b|\bsoftware\ is\ (provided|distributed)\b|\b(without|no)\ warrant
    |\bas.is\W{1,2}basis
    """,
    re.IGNORECASE | re.VERBOSE,
)
# PEP 263, Ruby's and editors' magic comments, and what compilers and build tools read in comments.
_DIRECTIVE = re.compile(
    r"\W{1,6}(.{0,20}\bcoding[:=]|frozen_string_literal:|vim?:|go:|\+build\b|cython:|distutils:|syntax=|escape=)"
)
_DECLARATION = re.compile(r"\s*(<\?xml\b[^>]*\?>|<\?php|<!doctype\b[^>]*>)\s*$", re.IGNORECASE)

_Kind = Literal["line", "block", "blank", "stays"]


@dataclass(frozen=True, slots=True)
class _Part:
    """Whole lines at the top of a file, with their line ends."""

    lines: list[str]
    kind: _Kind

    def is_legal(self) -> bool:
        return self.kind in {"line", "block"} and any(map(_LEGAL.search, self.lines))


def make_header() -> DocumentFunction:
    """Return the function that takes the licence header off a document; `language` is in its metadata."""

    def strip(document: Document) -> Document:
        return document.with_text(strip_header(document.text, document.metadata["language"]))

    return strip


def strip_header(text: str, language: str) -> str:
    """Return `text` without the licence and copyright comments before its first code.

    Blank lines after such a comment go with it. Doing it again changes nothing.
    """
    # differs from paper: it used regular expressions; read as comments, shebangs and titles are told apart.
    parts = list(_leading(text, BY_LANGUAGE[language].comments))
    if not any(part.is_legal() for part in parts):
        return text
    kept: list[str] = []
    gone = False
    for part in parts:
        if gone and part.kind == "blank":
            continue
        lines = _without_legal(part)
        gone = not lines
        kept += lines
    return "".join(kept) + text[sum(len(line) for part in parts for line in part.lines) :]


def leading_comments(text: str, language: str) -> str:
    """Return the comments before the first code."""
    parts = _leading(text, BY_LANGUAGE[language].comments)
    return "".join(line for part in parts if part.kind in {"line", "block"} for line in part.lines)


def _without_legal(part: _Part) -> list[str]:
    """Return what stays of a part: of a comment by lines what is before and after its legal paragraphs."""
    if not part.is_legal():
        return part.lines
    if part.kind == "block":
        return []
    legal = [number for number, line in enumerate(part.lines) if _LEGAL.search(line)]
    before, after = legal[0], legal[-1] + 1
    while before and _has_words(part.lines[before - 1]):
        before -= 1
    while after < len(part.lines) and _has_words(part.lines[after]):
        after += 1
    return [*_from_words(part.lines[:before][::-1])[::-1], *_from_words(part.lines[after:])]


def _from_words(lines: list[str]) -> list[str]:
    """Return lines without those at the start that only rule or separate."""
    return lines[next((number for number, line in enumerate(lines) if _has_words(line)), len(lines)) :]


def _has_words(line: str) -> bool:
    return any(character.isalnum() for character in line)


def _leading(text: str, comments: Comments) -> Iterator[_Part]:
    """Yield the parts before the first code: runs of lines of one kind, and block comments."""
    at = 0
    while at < len(text):
        line = _line_at(text, at)
        kind = _kind(line, comments)
        if kind is None:
            return
        if kind == "block":
            end = _block_end(text, at, line, comments)
            if end is None:
                return
            yield _Part(text[at:end].splitlines(keepends=True), "block")
            at = end
            continue
        lines = []
        while line and _kind(line, comments) == kind:
            lines.append(line)
            at += len(line)
            line = _line_at(text, at)
        yield _Part(lines, kind)


def _line_at(text: str, at: int) -> str:
    """Return the line that begins at `at` with its end, nothing at the end of the text."""
    return text[at : text.find("\n", at) + 1 or len(text)]


def _kind(line: str, comments: Comments) -> _Kind | None:
    """Tell what a line begins; None is code."""
    stripped = line.lstrip()
    if not stripped:
        return "blank"
    if stripped.startswith("#!") or _DIRECTIVE.match(stripped) or _DECLARATION.match(line):
        return "stays"
    if any(stripped.startswith(start) for start, _ in comments.blocks):
        return "block"
    return "line" if stripped.startswith(comments.line) else None


def _block_end(text: str, at: int, line: str, comments: Comments) -> int | None:
    """Return where the line ends that closes a block comment; None where code follows or nothing closes."""
    inside = at + len(line) - len(line.lstrip())
    start, close = next(pair for pair in comments.blocks if text.startswith(pair[0], inside))
    found = text.find(close, inside + len(start))
    if found < 0:
        return None
    last = _line_at(text, found)
    return None if last[len(close) :].strip() else found + len(last)
