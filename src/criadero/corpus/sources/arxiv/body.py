r"""What of a paper is text: from the first section to the bibliography (LLaMA 2.1), appendices behind it too.

Entry point: `cut_body`. Works on tokens after expansion, so that sections and bibliographies are commands and
never words in a comment, a listing or a definition.
"""

from __future__ import annotations

from collections.abc import Sequence

from criadero.corpus.sources.arxiv.tokens import environment_at

_TOP = frozenset({"\\part", "\\chapter", "\\section"})
_LOWER = frozenset({"\\subsection", "\\subsubsection", "\\paragraph", "\\subparagraph"})
_BIBLIOGRAPHIES = frozenset({"thebibliography", "references", "REFERENCES"})
_BIBLIOGRAPHY_COMMANDS = frozenset({"\\bibliography", "\\printbibliography", "\\thebibliography"})
_APPENDICES = frozenset({"appendix", "appendices"})


def cut_body(tokens: Sequence[str], *, include_abstract: bool, drop_appendix: bool) -> list[str] | None:
    """Return the tokens of the body, or None where there is no section.

    Args:
        tokens: of a whole paper, or of a body, which stays as it is.
        include_abstract: begin at the abstract where that is before the first section.
        drop_appendix: end at the first appendix or bibliography, as RedPajama does.
    """
    start = _document_start(tokens)
    first = _first(tokens, start, _TOP)
    if first is None:
        first = _first(tokens, start, _LOWER)
    if first is None:
        return None
    if include_abstract:
        first = _abstract(tokens, start, first)
    return _without_bibliography(tokens, first, drop_appendix=drop_appendix)


def _document_start(tokens: Sequence[str]) -> int:
    for index, token in enumerate(tokens):
        if token == "\\begin" and environment_at(tokens, index) == "document":
            return index + 4
    return 0


def _first(tokens: Sequence[str], start: int, commands: frozenset[str]) -> int | None:
    return next((index for index in range(start, len(tokens)) if tokens[index] in commands), None)


def _abstract(tokens: Sequence[str], start: int, first: int) -> int:
    for index in range(start, first):
        if tokens[index] == "\\abstract":
            return index
        if tokens[index] == "\\begin" and environment_at(tokens, index) == "abstract":
            return index
    return first


def _without_bibliography(tokens: Sequence[str], first: int, *, drop_appendix: bool) -> list[str]:
    body: list[str] = []
    index, skipping = first, False
    while index < len(tokens):
        token = tokens[index]
        name = environment_at(tokens, index) if token in {"\\begin", "\\end"} else ""
        if name == "document":
            if token == "\\end":
                break
            index += 4
            continue
        appendix = token == "\\appendix" or (token == "\\begin" and name in _APPENDICES)
        bibliography = token in _BIBLIOGRAPHY_COMMANDS or (token == "\\begin" and name in _BIBLIOGRAPHIES)
        if drop_appendix and (appendix or bibliography):
            break
        skipping = bibliography or (skipping and not (appendix or token in _TOP or token in _LOWER))
        if token == "\\bibliographystyle":
            index = _after_group(tokens, index + 1)
            continue
        if not skipping:
            body.append(token)
        elif body and body[-1] != "\n\n":
            body.append("\n\n")
        index += 1
    return body


def _after_group(tokens: Sequence[str], index: int) -> int:
    r"""Return the index after a group without groups in it, as the name of a style is."""
    if index < len(tokens) and tokens[index] == "{":
        while index < len(tokens) and tokens[index] != "}":
            index += 1
        return index + 1
    return index
