"""Pages of a MediaWiki export: cut out of the bytes one by one, then parsed one by one.

Entry points: `cut_pages` and `parse_page`. An export escapes every `<` inside text, so `<page>` and `</page>`
can be found in the bytes. A page is held in memory alone and up to a cap; a broken one costs only itself; and
what stands outside pages, such as a DOCTYPE with entities, is never given to the XML parser.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

OPEN, CLOSE = b"<page>", b"</page>"
# MediaWiki refuses pages over 2 MiB of wikitext; escaped for XML that is at most six times as much.
MAX_PAGE_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class CutPage:
    """One page's XML, or why it could not be cut out.

    Attributes:
        number: counts the `<page>` elements of the bytes from 0, broken ones too.
        xml: from `<page>` to `</page>`; empty if there is a fault.
        fault: `unclosed_page`, `page_too_large` or none.
    """

    number: int
    xml: bytes
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """What an export says about a page: of its last revision there, if it has several."""

    id: str
    title: str
    namespace: int
    redirect: str | None
    revision: str
    text: str


def cut_pages(chunks: Iterable[bytes], *, max_bytes: int = MAX_PAGE_BYTES) -> Iterator[CutPage]:
    """Yield the pages in a stream of bytes, UTF-8 XML; memory is bounded by a page and a chunk."""
    held = bytearray()
    number = -1
    inside = False
    seen = 0  # of `held`, where the next mark cannot begin
    for chunk in chunks:
        held += chunk
        start = 0
        while (at := held.find(CLOSE if inside else OPEN, max(start, seen))) >= 0:
            if inside:
                yield from (cuts := list(_told_apart(bytes(held[start : at + len(CLOSE)]), number)))
                number = cuts[-1].number
                start = seen = at + len(CLOSE)
            else:
                number += 1
                start, seen = at, at + len(OPEN)
            inside = not inside
        if not inside:
            start = max(start, len(held) - len(OPEN) + 1)
        elif len(held) - start > max_bytes:
            yield CutPage(number, b"", "page_too_large")
            inside = False
            start = len(held) - len(OPEN) + 1
        del held[:start]
        seen = max(0, len(held) - len(CLOSE) + 1) if inside else 0
    if inside:
        yield CutPage(number, b"", "unclosed_page")


def _told_apart(xml: bytes, number: int) -> Iterator[CutPage]:
    """A page that was never closed ends where the next one begins."""
    while (following := xml.find(OPEN, len(OPEN))) >= 0:
        yield CutPage(number, b"", "unclosed_page")
        number += 1
        xml = xml[following:]
    yield CutPage(number, xml)


def parse_page(xml: bytes) -> Page:
    """Return the page that one `<page>` element describes.

    Raises:
        ValueError: not well-formed, or without title, id or a whole number as namespace.
    """
    found = _Found()
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    parser.StartElementHandler = found.start
    parser.EndElementHandler = found.end
    parser.CharacterDataHandler = found.characters
    try:
        parser.Parse(xml, True)
    except expat.ExpatError as problem:
        raise ValueError(f"not well-formed: {problem}") from None
    values = found.values
    if not values.get("page/title") or not values.get("page/id", "").isdigit():
        raise ValueError("a page without title or number")
    return Page(
        id=values["page/id"],
        title=values["page/title"],
        namespace=int(values.get("page/ns") or 0),
        redirect=found.redirect,
        revision=values.get("page/revision/id", ""),
        text=values.get("page/revision/text", ""),
    )


_WANTED = frozenset({"page/title", "page/id", "page/ns", "page/revision/id", "page/revision/text"})
_DEPTH = 3


@dataclass
class _Found:
    """Gathers the wanted elements while the parser walks; keeps nothing of the others, however deep."""

    values: dict[str, str] = field(default_factory=dict)
    redirect: str | None = None
    _path: list[str] = field(default_factory=list)
    _depth: int = 0
    _pieces: list[str] | None = None

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > _DEPTH:
            return
        self._path.append(name)
        path = "/".join(self._path)
        if path == "page/redirect":
            self.redirect = attributes.get("title", "")
        self._pieces = [] if path in _WANTED else None

    def characters(self, text: str) -> None:
        if self._pieces is not None and self._depth <= _DEPTH:
            self._pieces.append(text)

    def end(self, _name: str) -> None:
        self._depth -= 1
        if self._depth >= _DEPTH:
            return
        path = "/".join(self._path)
        if self._pieces is not None and path in _WANTED:
            self.values[path] = "".join(self._pieces)
        self._pieces = None
        self._path.pop()
