"""WARC records and archives made by hand for tests, with or without faults."""

from __future__ import annotations

import gzip


def record(
    content: bytes,
    *,
    kind: str = "conversion",
    url: str = "http://example.org/",
    length: int | None = None,
    headers: tuple[tuple[str, str], ...] = (),
    end: bytes = b"\r\n\r\n",
) -> bytes:
    """One record; `length` overrides the true Content-Length."""
    lines = [("WARC-Type", kind), *headers, ("WARC-Target-URI", url), ("WARC-Date", "2022-05-16T01:02:03Z")]
    lines.append(("Content-Length", str(len(content) if length is None else length)))
    head = "WARC/1.0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines) + "\r\n"
    return head.encode() + content + end


def response(html: bytes, *, http: tuple[str, ...] = ("Content-Type: text/html",), url: str = "u") -> bytes:
    """A `response` record of an HTML page."""
    head = "\r\n".join(("HTTP/1.1 200 OK", *http)).encode() + b"\r\n\r\n"
    kind = ("Content-Type", "application/http; msgtype=response")
    return record(head + html, kind="response", url=url, headers=(kind,))


def pages(count: int, *, words: int = 40) -> list[bytes]:
    """Records with texts `page 0 ...`, `page 1 ...`."""
    return [record(f"page {i} ".encode() + b"some words " * words, url=f"http://x/{i}") for i in range(count)]


def gzipped(records: list[bytes]) -> bytes:
    """One gzip member for each record, as crawls are stored."""
    return b"".join(gzip.compress(r, mtime=0) for r in records)
