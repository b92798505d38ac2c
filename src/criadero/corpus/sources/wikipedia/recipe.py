"""The recipe for Wikipedia: `kind = "wikipedia"`, dumps of pages-articles in any of 20 languages.

Entry points: `WikipediaConfig` and `stages`. Pages that are no articles are dropped with their reason, then
wikitext becomes plain text. LLaMA 2.1 removed "hyperlinks, comments and other formatting boilerplate".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from criadero.config import Config
from criadero.corpus.document import BadRecord, Document, Drop
from criadero.corpus.engine.stage import DocumentFunction, Each, Read, Reader, Recipe, Split
from criadero.corpus.sources.inputs import InputFile, input_files
from criadero.corpus.sources.wikipedia import dump
from criadero.corpus.sources.wikipedia.clean import make_cleaner
from criadero.corpus.sources.wikipedia.languages import LANGUAGES
from criadero.corpus.sources.wikipedia.pages import Page, parse_page
from criadero.errors import DataError
from criadero.notices import say_once

# Of all its text since June 2023; what was written before may be taken under it (CC BY-SA 3.0, 4b).
LICENCE = "CC-BY-SA-4.0"
# Site and date, layout, and whether it is one of several files.
_DUMP = re.compile(r"(.*-pages-articles)(-multistream)?(\d*)\.xml")
_FILES, _MEDIA, _CATEGORIES = 6, -2, 14


class WikipediaConfig(Config):
    """A source of kind `wikipedia`.

    Attributes:
        kind: names this kind of source.
        language: code of the dumps' language, for dumps that do not say it.
    """

    kind: Literal["wikipedia"] = "wikipedia"
    language: str | None = None


def stages(config: WikipediaConfig, *, source: str, inputs: Sequence[Path | str]) -> Recipe:
    """Return the recipe for the dumps `inputs`: files, or folders of them.

    Raises:
        DataError: an input is missing or is no dump, its language is not known, or it holds the pages of
            another input once more.
    """
    splits: list[Split] = []
    namespaces: dict[str, dict[str, list[str]]] = {}
    of_language: dict[str, Path] = {}
    for file in _dumps(inputs):
        site = dump.site_of(file.path)
        language = _language(config.language or site.language, file.path)
        _refuse_second(of_language.setdefault(language, file.path), file.path)
        own = namespaces.setdefault(language, {"files": [], "categories": []})
        own["files"] += [site.namespaces[n] for n in (_FILES, _MEDIA) if n in site.namespaces]
        own["categories"] += [site.namespaces[n] for n in (_CATEGORIES,) if n in site.namespaces]
        splits += _splits(file, language)
    return (
        Read(tuple(splits), make_reader, {"source": source}),
        Each("articles", make_selector),
        Each("clean", make_cleaner, {"namespaces": namespaces}),
    )


def make_reader(*, source: str) -> Reader:
    """Return the function that reads the pages of a part of a dump, as wikitext."""

    def read(split: Split) -> Iterator[Document | BadRecord]:
        parts = split.parts
        part = dump.Part(split.start, split.stop, int(parts["page"]), int(parts["pages_modulo"]))
        for found in dump.read_part(Path(split.path), part):
            if isinstance(found, dump.Damage):
                yield BadRecord(found.where, found.reason, found.detail)
                continue
            where, cut = found
            try:
                if cut.fault:
                    yield BadRecord(where, cut.fault)
                else:
                    yield _document(parse_page(cut.xml), source, str(parts["language"]))
            except ValueError as problem:
                yield BadRecord(where, "bad_xml", str(problem))

    return read


def make_selector() -> DocumentFunction:
    """Return the function that keeps articles: namespace 0, no redirect, with text."""

    def select(document: Document) -> Document | Drop:
        if namespace := document.metadata.get("namespace"):
            return Drop("namespace", detail=namespace)
        if "redirect" in document.metadata:
            return Drop("redirect", detail=document.metadata["redirect"])
        return document if document.text.strip() else Drop("empty")

    return select


def _document(page: Page, source: str, language: str) -> Document:
    metadata = {
        "title": page.title,
        "language": language,
        "revision": page.revision,
        "url": f"https://{language}.wikipedia.org/wiki/{quote(page.title.replace(' ', '_'))}",
        "licence": LICENCE,
    }
    if page.namespace:
        metadata["namespace"] = str(page.namespace)
    if page.redirect is not None:
        metadata["redirect"] = page.redirect
    return Document(f"{language}:{page.id}", page.text, source, metadata)


def _dumps(inputs: Sequence[Path | str]) -> list[InputFile]:
    # The index beside a multistream dump ends in .txt.bz2.
    found = [file for file in input_files(inputs, (".xml", ".bz2")) if ".xml" in file.path.name]
    if not found:
        raise DataError(
            f"there is no dump of Wikipedia in {', '.join(f'`{path}`' for path in inputs)}",
            hint="dumps are called *-pages-articles*.xml*.bz2",
        )
    return found


def _refuse_second(first: Path, other: Path) -> None:
    """Refuse two dumps of one site where they are not parts of one: they hold the same pages.

    Raises:
        DataError: their names differ in date or layout.
    """
    kinds = [(name[1], name[2], bool(name[3])) for p in (first, other) if (name := _DUMP.match(p.name))]
    if len(set(kinds)) > 1:
        raise DataError(
            f"`{first}` and `{other}` hold the same pages",
            hint="leave one of them out; a multistream dump is the one that is read in parallel",
        )


def _language(language: str, path: Path) -> str:
    if not language:
        raise DataError(f"`{path}` does not say its language", hint="set `language`, such as language = 'en'")
    if language not in LANGUAGES:
        say_once(f"no tables for the language {language!r}: sections and templates by their English names")
    return language


def _splits(file: InputFile, language: str) -> Iterator[Split]:
    for part in dump.plan(file.path):
        mark = part.page if part.stop is None else part.start
        yield Split(
            name=f"{file.name}@{mark}",
            path=str(file.path),
            start=part.start,
            stop=part.stop,
            parts={"language": language, "page": part.page, "pages_modulo": part.pages_modulo},
        )
