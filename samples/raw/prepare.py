"""Make the raw samples of CommonCrawl, C4, Wikipedia and GitHub: `python samples/raw/prepare.py PACKAGES`.

PACKAGES is a folder with the package files named in `PACKAGE_FILES`, fetched with pip, npm and apt; each is
checked against its sha256. Writes beside itself; the same packages give the same bytes. What is taken and
why it may be redistributed: samples/raw/README.md. Needs `dpkg-deb` and the `corpus` and `dev` extras.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

RAW = Path(__file__).parent
DATE = "2026-01-01T00:00:00Z"  # of all records, so that the same packages give the same bytes
PACKAGE_FILES = {
    "apache2-doc_2.4.71-1~deb12u1_all.deb": (
        "a7b3d1131c1c63dbf9999b28e75f9a133d30f70492b419936bd51759ac77a01f"
    ),
    "python3.11-doc_3.11.2-6+deb12u9_all.deb": (
        "5b3594189d6ef9a6963ce0347fd307a1cc67620ad697e144db366070e2e146be"
    ),
    "gensim-4.4.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl": (
        "91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8"
    ),
    "llamafactory-0.9.5.tar.gz": "1702c0bfb864e80577a59521d2edcacd2aab05ec6aee06188fcba335a589681f",
    "attrs-26.1.0-py3-none-any.whl": "c647aa4a12dfbad9333ca4e71fe62ddc36f4e63b2d260a37a8b83d2f043ac309",
    "click-8.5.1-py3-none-any.whl": "8bb5376d2006950386f8c6427613334a2acadc5f559cb80e638d00b4df957e37",
    "flask-3.1.3-py3-none-any.whl": "f4bcbefc124291925f1a26446da31a5178f9483862233b23c0c96a20701f670c",
    "idna-3.20-py3-none-any.whl": "ab7ae7122974553370f0bdb919e1a960b2cd1bc1ef0276416d896db81c14582c",
    "jinja2-3.1.6-py3-none-any.whl": "85ece4451f492d0c13c5dd7c13a64681a86afae63a5f347908daf103ce6d2f67",
    "requests-2.34.2-py3-none-any.whl": "2a0d60c172f83ac6ab31e4554906c0f3b3588d37b5cb939b1c061f4907e278e0",
    "express-4.22.3.tgz": "5414b9a1a1a87a182475559c39b471f8bea7b069160c76a7876818b1da80a09c",
    "chalk-4.1.2.tgz": "e84c643aa53e87ace6c3d368b3cddda24a2d1434a06b6dfbdb628ad2107df90a",
}
CODE = ("attrs", "click", "flask", "idna", "jinja2", "requests", "express", "chalk")
DUMPS = (
    "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2",
    "bgwiki-latest-pages-articles-shortened.xml.bz2",
)
APACHE = "usr/share/doc/apache2-doc/manual"
PYTHON = "usr/share/doc/python3.11/html"


def main(packages: Path) -> None:
    """Check the packages and write the four folders."""
    for name, expected in PACKAGE_FILES.items():
        found = hashlib.sha256((packages / name).read_bytes()).hexdigest()
        if found != expected:
            sys.exit(f"{name}: sha256 {found}, expected {expected}")
    for folder in ("commoncrawl", "c4", "wikipedia", "github"):
        (RAW / folder).mkdir(exist_ok=True)
    write_crawl(packages)
    write_c4(packages / "llamafactory-0.9.5.tar.gz")
    write_dumps(next(packages.glob("gensim-*.whl")))
    for file in PACKAGE_FILES:
        if file.startswith(CODE):
            shutil.copyfile(packages / file, RAW / "github" / file)


def write_crawl(packages: Path) -> None:
    """Wrap HTML pages as a crawl would: one WARC file with responses, one WET file with their text."""
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("apache2-doc", "python3.11-doc"):
            subprocess.run(["dpkg-deb", "-x", next(packages.glob(f"{name}_*.deb")), scratch], check=True)
        manual, library = Path(scratch) / APACHE, Path(scratch) / PYTHON
        with (RAW / "commoncrawl/manual.warc.gz").open("wb") as stream:
            write_warc(stream, apache_pages(manual))
        with (RAW / "commoncrawl/tutorial.warc.wet.gz").open("wb") as stream:
            write_wet(stream, python_pages(library))


def apache_pages(manual: Path) -> Iterator[tuple[str, bytes]]:
    """English prose, some modules, and the same front pages in four other languages."""
    folders = ("", "howto", "misc", "rewrite", "vhosts", "ssl", "faq", "platform", "programs")
    chosen = [page for folder in folders for page in sorted((manual / "en" / folder).glob("*.html"))]
    chosen += sorted((manual / "en/mod").glob("mod_[a-d]*.html"))
    chosen += [page for code in ("de", "fr", "es", "ja") for page in sorted((manual / code).glob("*.html"))]
    for page in chosen:
        yield f"https://httpd.apache.org/docs/2.4/{page.relative_to(manual).as_posix()}", page.read_bytes()


def python_pages(library: Path) -> Iterator[tuple[str, bytes]]:
    """Tutorial, how-to guides and questions."""
    for folder in ("tutorial", "howto", "faq"):
        for page in sorted((library / folder).glob("*.html")):
            yield f"https://docs.python.org/3.11/{page.relative_to(library).as_posix()}", page.read_bytes()


def write_warc(stream: BytesIO, pages: Iterator[tuple[str, bytes]]) -> None:
    """Write pages as response records."""
    writer = WARCWriter(stream, gzip=True)
    for number, (url, html) in enumerate(pages):
        headers = StatusAndHeaders("200 OK", [("Content-Type", "text/html; charset=utf-8")], "HTTP/1.1")
        record = writer.create_warc_record(
            url, "response", payload=BytesIO(html), http_headers=headers, warc_headers_dict=named(number)
        )
        writer.write_record(record)


def write_wet(stream: BytesIO, pages: Iterator[tuple[str, bytes]]) -> None:
    """Write the text of pages, boilerplate and all, as conversion records."""
    writer = WARCWriter(stream, gzip=True)
    for number, (url, html) in enumerate(pages):
        page = HTMLTree.parse(html.decode())
        text = (
            page.title
            + "\n"
            + extract_plain_text(page, main_content=False, list_bullets=False, alt_texts=False)
        )
        record = writer.create_warc_record(
            url,
            "conversion",
            payload=BytesIO(text.encode()),
            warc_content_type="text/plain",
            warc_headers_dict={**named(number), "WARC-Identified-Content-Language": "eng"},
        )
        writer.write_record(record)


def named(number: int) -> dict[str, str]:
    """Return headers that do not change from run to run."""
    return {"WARC-Date": DATE, "WARC-Record-ID": f"<urn:uuid:00000000-0000-4000-8000-{number:012}>"}


def write_c4(sdist: Path) -> None:
    """Copy 300 pages of the released C4."""
    with tarfile.open(sdist) as archive:
        pages = archive.extractfile("llamafactory-0.9.5/data/c4_demo.jsonl")
        assert pages is not None
        (RAW / "c4/c4-demo.json.gz").write_bytes(gzip.compress(pages.read(), 9, mtime=0))


def write_dumps(wheel: Path) -> None:
    """Copy two shortened dumps of Wikipedia as they are."""
    with zipfile.ZipFile(wheel) as archive:
        for name in DUMPS:
            (RAW / "wikipedia" / name).write_bytes(archive.read(f"gensim/test/test_data/{name}"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
