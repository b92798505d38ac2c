"""The markup inside paragraphs: links, emphasis, entities. Read by mwparserfromhell.

Entry point: `plain_text`. What the parser is given is short, has no templates, tables or tags
any more, and no `<`; where it fails all the same, brackets and quotes are taken out by pattern.
"""

from __future__ import annotations

import html
import re
from typing import Any

import mwparserfromhell
from mwparserfromhell.nodes import ExternalLink, Heading, HTMLEntity, Tag, Text, Wikilink
from mwparserfromhell.parser import ParserError

from criadero.corpus.sources.wikipedia.languages import LANGUAGES
from criadero.corpus.sources.wikipedia.markup import HOLE

# Its time grows with the square of hostile markup: 0.04 s for this many characters.
MAX_PARSED_CHARACTERS = 4000
_HAS_MARKUP = re.compile(r"\[|''|://|&")
_LINK = re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]]*)\]\]")
_LEFT_OVER = re.compile(r"\[\[|\]\]|'{2,}|\{\{+|\}\}+|\{\||\|\}|^-{4,}", re.MULTILINE)
_PIPE_TRICK = re.compile(r"^[^:]*:|[ ]*\([^()]*\)$|,.*$")
_OTHER_LANGUAGES = """
    af ar arz az be be-x-old bn br bs ceb cy el eo et eu fa fi ga gl he hi hy id is ja ka kk ko
    la lb lt lv min mk ml mr ms nds ne nn no oc pnb sco sh simple sk sq ta te th tl tr ur uz vi vo war zh
    zh-classical zh-min-nan zh-yue"""
_INTERLANGUAGE = frozenset(LANGUAGES) | frozenset(_OTHER_LANGUAGES.split())


def plain_text(text: str, categories: frozenset[str]) -> str:
    """Return the text that readers see, lines and list markers as they are."""
    paragraphs = (_paragraph(paragraph, categories) for paragraph in text.split("\n\n"))
    return "\n\n".join(paragraphs)


def _paragraph(text: str, categories: frozenset[str]) -> str:
    if not _HAS_MARKUP.search(text):
        return _LEFT_OVER.sub("", text)
    if len(text) > MAX_PARSED_CHARACTERS and "\n" in text:
        return "\n".join(_paragraph(line, categories) for line in text.split("\n"))
    if len(text) > MAX_PARSED_CHARACTERS:
        return _by_pattern(text)
    try:
        parsed = mwparserfromhell.parse(text.replace("<", "&lt;"))
        return _LEFT_OVER.sub("", _render(parsed, categories))
    except (ParserError, RecursionError):
        return _by_pattern(text)


def _by_pattern(text: str) -> str:
    return html.unescape(_LEFT_OVER.sub("", _LINK.sub(r"\1", text)))


def _render(code: Any, categories: frozenset[str]) -> str:
    return "".join(_node(node, categories) for node in code.nodes)


def _node(node: Any, categories: frozenset[str]) -> str:
    if isinstance(node, Text):
        return str(node.value)
    if isinstance(node, Wikilink):
        return _wikilink(node, categories)
    if isinstance(node, ExternalLink):
        if not node.brackets:
            return str(node.url)
        return _render(node.title, categories) if node.title else HOLE
    if isinstance(node, HTMLEntity):
        return html.unescape(str(node))
    if isinstance(node, Heading):
        return _render(node.title, categories)
    if isinstance(node, Tag):
        if node.wiki_markup and not node.contents:
            return str(node.wiki_markup)
        return _render(node.contents, categories) if node.contents else ""
    return ""


def _wikilink(link: Any, categories: frozenset[str]) -> str:
    title = str(link.title).strip()
    prefix = title.partition(":")[0].strip() if ":" in title else ""
    if prefix and prefix.casefold() in categories:
        return HOLE
    if link.text is None:
        return HOLE if prefix in _INTERLANGUAGE else html.unescape(title.removeprefix(":"))
    return _render(link.text, categories) or _PIPE_TRICK.sub("", title.removeprefix(":"))
