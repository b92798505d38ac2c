"""An article's wikitext as plain text: sections with their headings, paragraphs, list items, table rows.

Entry points: `make_cleaner` for the stage, `clean_text` for one text. Constructs over several lines go first,
each in one pass (`markup`, `expand`, `templates`); then sections are chosen; then mwparserfromhell reads the
markup inside each paragraph. Paragraphs are given to it up to a length: on hostile markup its time grows with
the square of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from criadero.corpus.document import Document, Drop
from criadero.corpus.engine.stage import DocumentFunction
from criadero.corpus.extra import require_extra
from criadero.corpus.sources.wikipedia import markup
from criadero.corpus.sources.wikipedia.expand import expand
from criadero.corpus.sources.wikipedia.inline import plain_text
from criadero.corpus.sources.wikipedia.languages import Names, names_of
from criadero.corpus.sources.wikipedia.markup import HOLE
from criadero.corpus.sources.wikipedia.templates import render_for

_MAGIC_WORD = re.compile(r"__[^\W\d_]+(?:_[^\W\d_]+)*__")
_VARIANT = re.compile(r"-\{([^{}]*)\}-")
_AROUND_HOLE = re.compile(rf"(?: ?(\()[ ,;:/–—-]{{0,8}}|[,;]? ?){HOLE}[{HOLE} ,;:/–—-]*(\))?")
_SEPARATORS = re.compile(r"([,;:])(?: *[,;:])+")
_LIST = re.compile(r"([*#:;]+)[ ]*(.*)")
_BLANKS = re.compile(r"[^\S\n]+")
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\u00ad\u200b\u2060\ufeff]")


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it; the lead has level 0 and no title."""

    level: int
    title: str
    body: str


def make_cleaner(*, namespaces: Mapping[str, Mapping[str, list[str]]]) -> DocumentFunction:
    """Return the function that makes a document's wikitext plain.

    Args:
        namespaces: for each language, what its dump calls `files` and `categories`.
    """
    with require_extra("cleaning Wikipedia"):
        import mwparserfromhell  # noqa: F401
    names = {language: with_own_names(names_of(language), own) for language, own in namespaces.items()}

    def clean(document: Document) -> Document | Drop:
        language = document.metadata.get("language", "en")
        text = clean_text(document.text, language=language, names=names.get(language))
        return document.with_text(text) if text else Drop("no_text", detail="nothing but markup")

    return clean


def with_own_names(names: Names, own: Mapping[str, Iterable[str]]) -> Names:
    """Return the names of a language with those added that its dump uses."""
    return replace(
        names,
        files=names.files | {name.casefold() for name in own.get("files", ())},
        categories=names.categories | {name.casefold() for name in own.get("categories", ())},
    )


def clean_text(text: str, *, language: str, names: Names | None = None) -> str:
    """Return plain text for any wikitext; blank lines between sections and paragraphs."""
    names = names or names_of(language)
    kept = markup.Kept()
    text = kept.take(markup.without_comments(_INVISIBLE.sub("", text)))
    text = expand(markup.without_elements(text), render_for(language))
    text = _MAGIC_WORD.sub(lambda word: "" if word[0].isupper() else word[0], text)
    text = markup.with_tables_as_rows(markup.without_files(text, names.files))
    if language == "sr":
        text = _VARIANT.sub(_first_variant, text)
    text = markup.without_tags(text)
    sections = without_tail(split_sections(text), names)
    tidied = [replace(s, title=_line(s.title, names), body=_tidy(s.body, names)) for s in sections]
    blocks = [part for s in without_empty(tidied) for part in (s.title, s.body) if part]
    return kept.put_back("\n\n".join(blocks)).strip()


def split_sections(text: str) -> list[Section]:
    """Cut wikitext at its headings, `== Title ==`."""
    sections: list[Section] = []
    level, title = 0, ""
    body: list[str] = []
    for line in text.split("\n"):
        bare = line.strip(f" \t{HOLE}") if "=" in line else ""
        if bare.startswith("=") and bare.endswith("=") and bare.strip("= \t"):
            sections.append(Section(level, title, "\n".join(body)))
            level = min(len(bare) - len(bare.lstrip("=")), len(bare) - len(bare.rstrip("=")), 6)
            title, body = bare[level:-level].strip(), []
        else:
            body.append(line)
    return [*sections, Section(level, title, "\n".join(body))]


def without_tail(sections: list[Section], names: Names) -> list[Section]:
    """Drop sections of links and sources with all below them, by their titles."""
    kept: list[Section] = []
    dropped_level = 0
    for section in sections:
        if dropped_level and section.level > dropped_level:
            continue
        dropped_level = section.level if _title(section) in names.tail else 0
        if not dropped_level:
            kept.append(section)
    while len(kept) > 1:
        top = max(i for i, section in enumerate(kept) if section.level <= 2 or i == 0)
        if top == 0 or _title(kept[top]) not in names.last:
            break
        del kept[top:]
    return kept


def _title(section: Section) -> str:
    bare = section.title.strip(f"'\": \t{HOLE}").casefold()
    return " ".join(bare.split())


def without_empty(sections: list[Section]) -> list[Section]:
    """Drop headings with nothing under them."""
    kept: list[Section] = []
    for section in reversed(sections):
        has_below = bool(kept) and kept[-1].level > section.level
        if section.body or (has_below and section.level):
            kept.append(section)
    return kept[::-1]


def _tidy(body: str, names: Names) -> str:
    """Return paragraphs and list items, one blank line between paragraphs."""
    lines = (_as_line(line) for line in plain_text(body, names.categories).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _line(text: str, names: Names) -> str:
    return " ".join(_as_line(line) for line in plain_text(text, names.categories).split("\n")).strip()


def _as_line(line: str) -> str:
    line = _BLANKS.sub(" ", line).strip()
    if HOLE in line:
        line = _BLANKS.sub(" ", _AROUND_HOLE.sub(_mend, line)).strip()
    marker = _LIST.fullmatch(line)
    if marker is None:
        return line
    bullets = "" if marker[1][-1] in ":;" else re.sub("[:;]", "", marker[1])
    return f"{bullets} {marker[2]}".strip() if marker[2] else ""


def _mend(hole: re.Match[str]) -> str:
    """Close the gap something left: no empty brackets, no separators with nothing between them."""
    before, after = hole[1], hole[2]
    if before and after:
        return ""
    if before:
        return " ("
    if after:
        return ")"
    rest = _without_gap(hole[0])
    previous, following = (
        hole.string[max(0, hole.start() - 1) : hole.start()],
        hole.string[hole.end() : hole.end() + 1],
    )
    if not rest and previous in {".", "!", "?"} and following.isupper():
        return " "  # a reference stood between two sentences
    return rest.rstrip(" ,;:") if following in {".", ")"} else rest


def _without_gap(text: str) -> str:
    """Keep one separator of those around a hole."""
    before, _, after = text.partition(HOLE)
    after = _SEPARATORS.sub(r"\1", after.replace(HOLE, ""))
    return after if after.lstrip()[:1] in {",", ";", ":"} else before + after


def _first_variant(conversion: re.Match[str]) -> str:
    """Serbian in two scripts: `-{text}-`, or `-{sr-ec: text; sr-el: text}-`."""
    text = conversion[1].rpartition("|")[2]
    name, colon, value = text.partition(";")[0].partition(":")
    return value.strip() if colon and name.strip().startswith("sr") else text
