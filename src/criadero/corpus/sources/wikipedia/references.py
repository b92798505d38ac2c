"""Addresses that Wikipedia cites: what stands in `<ref>` elements, in whatever form.

Entry point: `reference_urls`. Pages cited are the positive examples of the quality classifier for
CommonCrawl (LLaMA 2.1).
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

from criadero.corpus.sources.wikipedia import dump
from criadero.corpus.sources.wikipedia.markup import contents_of, without_comments
from criadero.corpus.sources.wikipedia.pages import parse_page

_URL = re.compile(r"(?:https?:|(?<![:/\w]))//[^\s<>\"\[\]{}|]+\.[^\s<>\"\[\]{}|]+", re.IGNORECASE)
MAX_URL_CHARACTERS = 2048
_NOWIKI = re.compile(r"<nowiki\s*/>", re.IGNORECASE)


def reference_urls(source: Path | str) -> Iterator[str]:
    """Yield the addresses cited in `<ref>` elements, in order, each as often as it is cited.

    Named and unnamed references count, over one line or more; templates, bracketed links and bare addresses
    alike. An address without a scheme gets `https`. Pages that cannot be read are passed over.

    Args:
        source: a path is a dump, of whose articles all references are read; a string is wikitext.

    Raises:
        OSError: the dump is missing.
    """
    if isinstance(source, Path):
        for text in _articles(source):
            yield from reference_urls(text)
        return
    for content in contents_of(_NOWIKI.sub("", without_comments(source)), "ref"):
        for found in _URL.finditer(content):
            if url := _trimmed(found[0]):
                yield url if url[0] != "/" else f"https:{url}"


def _trimmed(url: str) -> str:
    """Cut what belongs to the sentence: an entity that ends the address, final points, a closing bracket."""
    url = re.split(r"[\s<>\"]|''", html.unescape(url), maxsplit=1)[0]
    if len(url) > MAX_URL_CHARACTERS:
        return ""
    shorter = url.rstrip(".,;:!?'")
    while shorter.endswith(")") and shorter.count(")") > shorter.count("("):
        shorter = shorter[:-1].rstrip(".,;:!?'")
    return shorter


def _articles(path: Path) -> Iterator[str]:
    for found in dump.read_part(path, dump.Part()):
        if isinstance(found, dump.Damage) or found[1].fault:
            continue
        try:
            page = parse_page(found[1].xml)
        except ValueError:
            continue
        if page.namespace == 0 and page.redirect is None:
            yield page.text
