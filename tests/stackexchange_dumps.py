"""Posts.xml files for tests, written by the standard library's XML escaping."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from xml.sax.saxutils import quoteattr

HEAD = b'\xef\xbb\xbf<?xml version="1.0" encoding="utf-8"?>\r\n<posts>\r\n'
TAIL = b"</posts>"


def row(**attributes: object) -> bytes:
    """Return one row, with the attributes given."""
    written = "".join(f" {key}={quoteattr(str(value))}" for key, value in attributes.items())
    return f"  <row{written} />\r\n".encode()


def question(post_id: int, body: str = "<p>Why?</p>", **attributes: object) -> bytes:
    """Return a question; a title of None leaves it out."""
    known: dict[str, object] = {"Id": post_id, "PostTypeId": 1, "Score": 1, "Title": f"Question {post_id}"}
    values = {**known, "CreationDate": "2020-01-01T00:00:00.000", **attributes, "Body": body}
    return row(**{key: value for key, value in values.items() if value is not None})


def answer(post_id: int, parent: int, score: object = 0, body: str = "", **attributes: object) -> bytes:
    """Return an answer; its body says id and score unless given."""
    body = body or f"<p>answer {post_id} of {score}</p>"
    known: dict[str, object] = {"Id": post_id, "PostTypeId": 2, "ParentId": parent, "Score": score}
    return row(**{**known, "CreationDate": "2020-01-02T00:00:00.000", **attributes, "Body": body})


def write(folder: Path, rows: Iterable[bytes], *, site: str = "test.example") -> Path:
    """Write SITE/Posts.xml below `folder` and return the folder of the site."""
    path = folder / site / "Posts.xml"
    path.parent.mkdir(parents=True)
    path.write_bytes(HEAD + b"".join(rows) + TAIL)
    return path.parent
