r"""User macros expanded by pylatexenc's parser: an independent reading of the same LaTeX.

pylatexenc finds commands, their arguments, groups, comments and verbatim text; here the value of a macro is
put in its place as a string and parsed again. Knows `\newcommand`, `\renewcommand` and operators.
"""

from __future__ import annotations

import re
from typing import Any

from pylatexenc.latexwalker import LatexWalker, get_default_latex_context_db
from pylatexenc.macrospec import MacroSpec

_DEFINERS = ("newcommand", "renewcommand")
_OPERATOR = "DeclareMathOperator"


def expand(text: str) -> str:
    """Return the LaTeX with comments and definitions gone and macros replaced."""
    definitions: dict[str, tuple[int, str | None, str]] = {}
    _collect(_parse(text, definitions), definitions)
    return _expand(text, definitions)


def _parse(text: str, definitions: dict[str, tuple[int, str | None, str]]) -> list[Any]:
    database = get_default_latex_context_db()
    specs = [
        MacroSpec(name, "{" * count if default is None else "[" + "{" * (count - 1))
        for name, (count, default, _) in definitions.items()
    ]
    specs.append(MacroSpec(_OPERATOR, "*{{"))
    database.add_context_category("user", macros=specs, prepend=True)
    return LatexWalker(text, latex_context=database, tolerant_parsing=True).get_latex_nodes()[0]


def _collect(nodes: list[Any], definitions: dict[str, tuple[int, str | None, str]]) -> None:
    for node in nodes:
        if type(node).__name__ == "LatexMacroNode" and node.macroname in _DEFINERS:
            _, name, count, default, body = node.nodeargd.argnlist
            digits = _inside(count) if count is not None else "0"
            first = _inside(default) if default is not None else None
            definitions[_inside(name).strip().removeprefix("\\")] = (int(digits), first, _inside(body))
        if type(node).__name__ == "LatexMacroNode" and node.macroname == _OPERATOR:
            star, name, text = node.nodeargd.argnlist
            command = "\\operatorname" + ("*" if star is not None else "")
            value = f"{command}{{{_inside(text)}}}"
            definitions[_inside(name).strip().removeprefix("\\")] = (0, None, value)
        _collect(getattr(node, "nodelist", None) or [], definitions)


def _inside(node: Any) -> str:
    verbatim = node.latex_verbatim()
    return verbatim[1:-1] if type(node).__name__ == "LatexGroupNode" else verbatim


def _expand(text: str, definitions: dict[str, tuple[int, str | None, str]]) -> str:
    return _join([_write(node, definitions) for node in _parse(text, definitions)])


def _join(parts: list[str]) -> str:
    ends_in_word = False
    pieces: list[str] = []
    for part in filter(None, parts):
        if ends_in_word and part[0].isalpha():
            pieces.append(" ")
        pieces.append(part)
        ends_in_word = re.search(r"\\[a-zA-Z]+$", part[-60:]) is not None
    return "".join(pieces)


def _write(node: Any, definitions: dict[str, tuple[int, str | None, str]]) -> str:
    kind = type(node).__name__
    if kind == "LatexCommentNode":
        return "\n\n" if node.comment_post_space.count("\n") > 1 else ""
    if kind == "LatexMacroNode":
        return _write_macro(node, definitions)
    if kind == "LatexGroupNode":
        inside = _join([_write(child, definitions) for child in node.nodelist])
        return node.delimiters[0] + inside + node.delimiters[1]
    if kind == "LatexMathNode":
        inside = _join([_write(child, definitions) for child in node.nodelist])
        return node.delimiters[0] + inside + node.delimiters[1]
    if kind == "LatexEnvironmentNode" and node.environmentname != "verbatim":
        arguments = [_write(a, definitions) for a in node.nodeargd.argnlist or [] if a is not None]
        inside = _join([_write(child, definitions) for child in node.nodelist])
        name = node.environmentname
        return f"\\begin{{{name}}}" + "".join(arguments) + inside + f"\\end{{{name}}}"
    return str(node.latex_verbatim())


def _write_macro(node: Any, definitions: dict[str, tuple[int, str | None, str]]) -> str:
    if node.macroname in (*_DEFINERS, _OPERATOR):
        return ""
    arguments = node.nodeargd.argnlist if node.nodeargd is not None else []
    if node.macroname in definitions:
        count, default, body = definitions[node.macroname]
        values = [_inside(a) if a is not None else default or "" for a in arguments]
        assert len(values) == count
        value = re.sub(r"#([1-9])", lambda match: values[int(match[1]) - 1], body)
        return _expand(value, definitions)
    if node.macroname in {"verb", "url"}:
        return str(node.latex_verbatim())
    written = [_write(a, definitions) for a in arguments if a is not None]
    return _join([f"\\{node.macroname}{node.macro_post_space}", *written])
