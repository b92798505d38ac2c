"""Pages become documents: the reader of the source, and CCNet's first step on what it reads.

Entry points: `make_reader` for `Read`, `make_parse` for `Each`. The first line of a page is its title and
leaves the text; pages with less text than a minimum go before their lines are compared with others'.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from criadero.corpus.document import BadRecord, Document, Drop
from criadero.corpus.engine.stage import DocumentFunction, Reader, Split
from criadero.corpus.remote import NotThere, download, is_url
from criadero.corpus.sources.commoncrawl.warc import Page, read

_DUMP = re.compile(r"CC-MAIN-\d{4}-\d{2}")


def dump_of(path: str) -> str:
    """Return the crawl that a path or URL names (`CC-MAIN-2022-21`), or nothing."""
    found = _DUMP.search(path)
    return found[0] if found else ""


def make_reader(
    *,
    source: str,
    max_record_bytes: int,
    main_content: bool,
    downloads: str | None = None,
    keep_downloads: bool = True,
    s3_endpoint: str | None = None,
) -> Reader:
    """Return the reader of archives; `downloads` is where those that are URLs are kept."""

    def reader(split: Split) -> Iterator[Document | BadRecord]:
        path = Path(split.path)
        if is_url(split.path):
            assert downloads is not None
            try:
                path = download(split.path, Path(downloads), endpoint=s3_endpoint)
            except NotThere as problem:
                yield BadRecord(split.name, "not_on_server", problem.message)
                return
        for page in read(path, split.name, max_record_bytes=max_record_bytes, main_content=main_content):
            yield page if isinstance(page, BadRecord) else _document(page, source, dump_of(split.path))
        if is_url(split.path) and not keep_downloads:
            path.unlink(missing_ok=True)

    return reader


def _document(page: Page, source: str, dump: str) -> Document:
    known = {
        "url": page.url,
        "date": page.date,
        "digest": page.digest,
        "record": page.record_id,
        "dump": dump,
    }
    return Document(page.id, page.text, source, {name: value for name, value in known.items() if value})


def make_parse(*, min_characters: int) -> DocumentFunction:
    """Return the step that strips lines, takes the title out and drops short pages (score: characters)."""

    def parse(document: Document) -> Document | Drop:
        lines = [line.strip() for line in document.text.strip().split("\n")]
        title, content = lines[0], "\n".join(lines[1:])
        if len(content) < min_characters:
            return Drop("too_short", score=float(len(content)))
        return document.with_text(content).with_metadata(title=title)

    return parse
