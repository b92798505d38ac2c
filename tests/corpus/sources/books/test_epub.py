"""EPUB: the spine's order, and everything a zip from the network may try."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from criadero.corpus.sources.books import epub
from criadero.corpus.sources.books.epub import EpubFault, read_epub

CONTAINER = """<?xml version="1.0"?>
<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0"><rootfiles>
<rootfile full-path="OEBPS/content.opf" media-type="application/oebps-package+xml"/>
</rootfiles></container>"""
PACKAGE = """<?xml version="1.0"?>
<package xmlns="http://www.idpf.org/2007/opf" version="3.0" xmlns:dc="http://purl.org/dc/elements/1.1/">
<metadata><dc:title>A  Book</dc:title>
<dc:creator>Ann Author</dc:creator><dc:language>en</dc:language></metadata>
<manifest>
<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
<item id="two" href="text/two%20b.xhtml" media-type="application/xhtml+xml"/>
<item id="one" href="one.xhtml" media-type="application/xhtml+xml"/>
<item id="out" href="../../../etc/passwd" media-type="application/xhtml+xml"/>
<item id="css" href="a.css" media-type="text/css"/>
</manifest>
<spine><itemref idref="nav"/><itemref idref="one"/><itemref idref="two"/><itemref idref="out"/>
<itemref idref="css"/><itemref idref="one"/><itemref idref="none"/></spine></package>"""
CHAPTER = (
    '<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title>t</title>'
)
FILES = {
    "META-INF/container.xml": CONTAINER,
    "OEBPS/content.opf": PACKAGE,
    "OEBPS/nav.xhtml": "<html><body><p>Contents</p></body></html>",
    "OEBPS/one.xhtml": CHAPTER
    + "</head><body><h1>One</h1><p>First <i>words</i> &#233;.</p><p>More.</p></body></html>",
    "OEBPS/text/two b.xhtml": CHAPTER + "</head><body><h1>Two</h1><p>Last.</p></body></html>",
    "OEBPS/a.css": "p {}",
}


def write_epub(path: Path, files: dict[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_a_book_is_read_in_the_order_of_its_spine(tmp_path: Path) -> None:
    book = read_epub(write_epub(tmp_path / "a.epub", FILES))
    assert book.text == "One\n\nFirst words é.\n\nMore.\n\nTwo\n\nLast."
    assert book.fields == {"title": "A Book", "author": "Ann Author", "language": "en"}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"META-INF/container.xml": "<container/>"}, "not_epub"),
        ({"META-INF/container.xml": "<container"}, "not_epub"),
        ({"OEBPS/content.opf": "<!DOCTYPE x [<!ENTITY a 'aa'><!ENTITY b '&a;&a;'>]><x>&b;</x>"}, "not_epub"),
        ({"META-INF/rights.xml": "<x/>"}, "encrypted"),
        ({"OEBPS/one.xhtml": "<ul><li>x" * 5000}, "nested_too_deeply"),
        ({"META-INF/encryption.xml": "<e><EncryptionMethod Algorithm='http://www.w3.org/2001/04/xmlenc#aes'/></e>"},
         "encrypted"),
    ],
)  # fmt: skip
def test_books_that_cannot_be_read_are_refused(tmp_path: Path, changed: dict[str, str], reason: str) -> None:
    with pytest.raises(EpubFault) as fault:
        read_epub(write_epub(tmp_path / "a.epub", {**FILES, **changed}))
    assert fault.value.reason == reason


def test_hidden_fonts_are_no_encrypted_text(tmp_path: Path) -> None:
    fonts = "<e><EncryptionMethod Algorithm='http://www.idpf.org/2008/embedding'/></e>"
    assert read_epub(write_epub(tmp_path / "a.epub", {**FILES, "META-INF/encryption.xml": fonts})).text


def test_a_zip_bomb_is_refused_after_its_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epub, "MAX_MEMBER_BYTES", 1 << 20)
    path = write_epub(tmp_path / "a.epub", {**FILES, "OEBPS/one.xhtml": bytes(1 << 24)})
    with pytest.raises(EpubFault, match="longer than"):
        read_epub(path)
    monkeypatch.setattr(epub, "MAX_MEMBERS", 3)
    with pytest.raises(EpubFault, match="more than 3 files"):
        read_epub(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.integers(0, 2000), st.integers(0, 255), st.booleans())
def test_damage_anywhere_is_a_fault_or_does_no_harm(tmp_path: Path, at: int, byte: int, cut: bool) -> None:
    data = bytearray(write_epub(tmp_path / "a.epub", FILES).read_bytes())
    at = min(at, len(data) - 1)
    data[at] = byte
    path = tmp_path / "b.epub"
    path.write_bytes(data[:at] if cut else data)
    try:
        read_epub(path)
    except EpubFault as fault:
        assert fault.reason in {"damaged", "not_epub", "encrypted", "too_large"}  # noqa: PT017
