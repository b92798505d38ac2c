"""Pages of a crawl archive: the text of WET `conversion` records and of the HTML in WARC `response` records.

Entry point: `read(path, name)`. Headers are found by name, never by position: archives since 2020 carry
headers that older ones lack. Text of HTML is extracted by resiliparse, with the charset that the HTTP header
or the page itself declares. A record that cannot be used is a `BadRecord` with its place in the file.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from fastwarc.warc import ArchiveIterator, WarcRecordType
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5
from resiliparse.parse.html import HTMLTree

from criadero.corpus.document import BadRecord
from criadero.corpus.sources import html_nesting
from criadero.corpus.sources.commoncrawl.frames import MAX_RECORD_BYTES, BadFrame, Frame, frames

MAX_LINE_BYTES = 1 << 20
_KINDS = WarcRecordType.conversion | WarcRecordType.response
_HTML_TYPES = {"text/html", "application/xhtml+xml"}
# Where a page that declares its charset does so, generously.
_DECLARATION_BYTES = 4096
_OK_STATUS = 200
Decoding: TypeAlias = Literal["none", "content", "transfer", "all"]
_DECODINGS: tuple[Decoding, ...] = ("all", "content", "transfer")


@dataclass(frozen=True, slots=True)
class Page:
    """The text of one page.

    Attributes:
        id: `name@place`, unique in the corpus as long as `name` is.
        url: as the crawler recorded it; empty if it did not.
        date: of the crawl, ISO 8601 as recorded.
        text: any line ends; no lone surrogates.
        digest: of the record's content as recorded (`sha1:...`), empty if it is not.
        record_id: the archive's own name of the record.
    """

    id: str
    url: str
    date: str
    text: str
    digest: str
    record_id: str


def read(
    path: Path, name: str, *, max_record_bytes: int = MAX_RECORD_BYTES, main_content: bool = True
) -> Iterator[Page | BadRecord]:
    """Yield the pages of a `.warc` or `.warc.wet` archive, plain or compressed by gzip or zstd, in its order.

    Records that are no page are passed over: other types than `conversion` and `response`, responses with a
    status other than 200 or that are not HTML.

    Args:
        path: a local file.
        name: what ids begin with.
        max_record_bytes: longer records are bad records, also when only their decoded content is longer.
        main_content: of HTML, take the main content without menus and footers; all visible text otherwise.
    """
    for frame in frames(path, max_record_bytes=max_record_bytes):
        if isinstance(frame, BadFrame):
            yield BadRecord(f"{name}@{frame.place}", frame.reason, frame.detail)
            continue
        identity = f"{name}@{frame.place}"
        try:
            page = _page(frame, identity, max_record_bytes, main_content)
        except (OSError, ValueError, RuntimeError) as problem:
            yield BadRecord(identity, "bad_content", str(problem)[:200])
            continue
        if page is not None:
            yield page


def _page(frame: Frame, identity: str, max_record_bytes: int, main_content: bool) -> Page | BadRecord | None:
    record = _parse(frame.data, "none")
    if record is None or not _is_page(record):
        return None
    content = _content(frame.data, record, max_record_bytes)
    if len(content) > max_record_bytes:
        return BadRecord(identity, "record_too_large", f"more than {max_record_bytes:,} bytes when decoded")
    if record.record_type == WarcRecordType.conversion:
        text = content.decode("utf-8", "replace")
    else:
        text = _html_text(content, record.http_charset, main_content)
    if len(text) > MAX_LINE_BYTES and max(map(len, text.splitlines()), default=0) > MAX_LINE_BYTES:
        return BadRecord(identity, "line_too_long", f"a line of more than {MAX_LINE_BYTES:,} characters")
    headers = record.headers
    return Page(
        id=identity,
        url=headers.get("WARC-Target-URI", "").strip("<>"),
        date=headers.get("WARC-Date", ""),
        text=text,
        digest=headers.get("WARC-Block-Digest") or headers.get("WARC-Payload-Digest", ""),
        record_id=headers.get("WARC-Record-ID", ""),
    )


def _parse(data: bytes, auto_decode: Decoding) -> Any:
    """Return the record in `data`, or None if it is of a type that holds no page."""
    stream = ArchiveIterator(
        io.BytesIO(data), record_types=_KINDS, parse_http=True, auto_decode=auto_decode, stream_detect=False
    )
    return next(stream, None)


def _content(data: bytes, record: Any, max_record_bytes: int) -> bytes:
    """Return the decoded content, at most one byte more than allowed.

    Some crawlers store content decoded and leave the headers that say it is not (`Transfer-Encoding`).
    """
    if record.record_type == WarcRecordType.conversion:
        return bytes(record.reader.read(max_record_bytes + 1))
    for auto_decode in _DECODINGS:
        try:
            return bytes(_parse(data, auto_decode).reader.read(max_record_bytes + 1))
        except OSError:
            continue
    return bytes(record.reader.read(max_record_bytes + 1))


def _is_page(record: Any) -> bool:
    if record.record_type == WarcRecordType.conversion:
        return True
    headers = record.http_headers
    if headers is None or headers.status_code != _OK_STATUS:
        return False
    content_type = (headers.get("Content-Type") or "").partition(";")[0].strip().lower()
    return content_type in _HTML_TYPES


def _html_text(content: bytes, http_charset: str | None, main_content: bool) -> str:
    """Return a page's title on the first line, as WET archives have it, and then its text.

    Raises:
        ValueError: its elements are nested without end.
    """
    html = bytes_to_str(content, _charset(content, http_charset))
    if fault := html_nesting.fault(html):
        raise ValueError(fault)
    tree = HTMLTree.parse(html)
    text: str = extract_plain_text(tree, main_content=main_content, alt_texts=False)
    # Character references can name half a surrogate pair.
    return "\n".join(part for part in (tree.title, text) if part).encode("utf-8", "replace").decode()


def _charset(content: bytes, http_charset: str | None) -> str:
    """Return what the HTTP header or the page declares, if it exists; else UTF-8 if it fits, else a guess."""
    declared: str | None = http_charset and map_encoding_to_html5(http_charset, fallback_utf8=False)
    if declared is not None:
        return declared
    if b"charset" not in content[:_DECLARATION_BYTES].lower() and _is_utf8(content):
        return "utf-8"
    return detect_encoding(content, from_html_meta=True) or "utf-8"


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
