"""EPUB books: a zip of XHTML files, read in the order of the book's spine.

Entry point: `read_epub`. Nothing is extracted: members are looked up by the names the archive itself lists,
and read up to a cap. Encrypted books are refused.
"""

from __future__ import annotations

import posixpath
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote
from xml.parsers import expat

from criadero.corpus.extra import require_extra
from criadero.corpus.sources import html_nesting
from criadero.corpus.sources.books.decode import decode
from criadero.files import format_bytes

MAX_MEMBERS = 1 << 16
MAX_MEMBER_BYTES = 1 << 25
MAX_BOOK_BYTES = 1 << 27
_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
# These hide fonts, not text (EPUB 3.3, 4.4; Adobe's older form).
_OF_FONTS = frozenset({"http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC"})
_FIELDS = {"title": "title", "creator": "author", "language": "language"}
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)


class EpubFault(Exception):
    """A book that cannot be read; `reason` is one of few, in snake_case."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Epub:
    """Text of a book, chapters between blank lines, and what its package says: title, author, language."""

    text: str
    fields: dict[str, str]


@dataclass
class _Element:
    name: str
    attributes: dict[str, str]
    text: list[str] = field(default_factory=list)


def read_epub(path: Path) -> Epub:
    """Return the book in an EPUB file.

    Raises:
        EpubFault: `damaged`, `not_epub`, `encrypted`, `too_large` or `nested_too_deeply`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(_Members(archive))
    except _DAMAGED as problem:
        raise EpubFault("damaged", str(problem)) from None


class _Members:
    """Members of an archive by name, with the caps."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        if len(archive.infolist()) > MAX_MEMBERS:
            raise EpubFault("too_large", f"more than {MAX_MEMBERS:,} files")
        self._archive = archive
        self._infos = {info.filename: info for info in archive.infolist()}
        self._left_bytes = MAX_BOOK_BYTES

    def __contains__(self, name: str) -> bool:
        return name in self._infos

    def read(self, name: str) -> bytes:
        if name not in self._infos:
            raise EpubFault("not_epub", f"`{name}` is missing")
        if self._infos[name].flag_bits & 1:
            raise EpubFault("encrypted", f"`{name}` has a password")
        cap = min(MAX_MEMBER_BYTES, self._left_bytes)
        with self._archive.open(self._infos[name]) as stream:
            data = stream.read(cap + 1)
        if len(data) > cap:
            raise EpubFault("too_large", f"`{name}` is longer than {format_bytes(cap)}")
        self._left_bytes -= len(data)
        return data


def _read(members: _Members) -> Epub:
    if "META-INF/rights.xml" in members or "META-INF/sinf.xml" in members:
        raise EpubFault("encrypted", "the book is under rights management")
    if _ENCRYPTION in members:
        methods = [e for e in _elements(members.read(_ENCRYPTION)) if e.name == "EncryptionMethod"]
        if any(method.attributes.get("Algorithm") not in _OF_FONTS for method in methods):
            raise EpubFault("encrypted", "its text is encrypted")
    rootfiles = [e for e in _elements(members.read(_CONTAINER)) if e.name == "rootfile"]
    package_name = rootfiles[0].attributes.get("full-path", "") if rootfiles else ""
    package = _elements(members.read(package_name))
    chapters = [_text(members.read(name)) for name in _spine(package, package_name) if name in members]
    fields: dict[str, str] = {}
    for element in package:
        key, value = _FIELDS.get(element.name, ""), " ".join("".join(element.text).split())
        if key and value:
            fields.setdefault(key, value)
    return Epub("\n\n".join(chapter for chapter in chapters if chapter), fields)


def _spine(package: list[_Element], package_name: str) -> list[str]:
    """Return the members of the spine, once each, in order, without the table of contents."""
    folder = posixpath.dirname(package_name)
    items = {e.attributes.get("id", ""): e.attributes for e in package if e.name == "item"}
    names: dict[str, None] = {}
    for reference in (e.attributes for e in package if e.name == "itemref"):
        item = items.get(reference.get("idref", ""), {})
        is_text = item.get("media-type", "") in {"application/xhtml+xml", "text/html", "text/x-oeb1-document"}
        if is_text and "nav" not in item.get("properties", "").split():
            names[posixpath.normpath(posixpath.join(folder, unquote(item.get("href", ""))))] = None
    return list(names)


def _elements(xml: bytes) -> list[_Element]:
    """Return all elements of a small XML file, in order, by their names without prefix; no entities."""
    found: list[_Element] = []
    parser = expat.ParserCreate()

    def start(name: str, attributes: dict[str, str]) -> None:
        found.append(_Element(name.rpartition(":")[2], attributes))

    def characters(text: str) -> None:
        if found:
            found[-1].text.append(text)

    def entity(*_: object) -> None:
        raise EpubFault("not_epub", "its package declares entities")

    parser.StartElementHandler = start
    parser.CharacterDataHandler = characters
    parser.EntityDeclHandler = entity
    try:
        parser.Parse(xml, True)
    except expat.ExpatError as problem:
        raise EpubFault("not_epub", f"not well-formed: {problem}") from None
    return found


def _text(xhtml: bytes) -> str:
    with require_extra("reading EPUB"):
        from resiliparse.extract.html2text import extract_plain_text
    html = decode(xhtml)
    if fault := html_nesting.fault(html):
        raise EpubFault("nested_too_deeply", fault)
    text: str = extract_plain_text(
        html, preserve_formatting=True, main_content=False, list_bullets=True, alt_texts=False
    )
    return text.strip()
