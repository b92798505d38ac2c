"""A crawled page before cleaning: its lines without blanks, its address in one spelling, its subset.

Entry point: `make_page`, the first stage of a rebuild of C4. The rules are those of the code that made C4
(TensorFlow Datasets, text/c4_utils.py, version 3.1.0).
"""

from __future__ import annotations

import hashlib
import re

from criadero.corpus.document import Document, Drop
from criadero.corpus.engine.stage import DocumentFunction

MAX_CHARACTERS = 190_000
# Lines of the archive itself; those that are quoted in a page go too.
_HEADER_STARTS = ("WARC", "CONTENT-", "Content-")
_SCHEME = re.compile(r"https?://(www\.)?")
_TRACKING = re.compile(r"\?(utm_|ref|feed).*")


def make_page() -> DocumentFunction:
    """Return the function that brings a page into the form the later stages work on.

    Drops `no_url`, `no_text`, `no_date`, and `too_long` with the length in characters as score.
    """
    return prepare


def prepare(document: Document) -> Document | Drop:
    """Strip lines, drop blank ones, check what must be there; adds `normalized_url` and `subset`."""
    url = document.metadata.get("url", "")
    text = page_text(document.text)
    if not url:
        return Drop("no_url")
    if not text:
        return Drop("no_text")
    if not document.metadata.get("date"):
        return Drop("no_date")
    if len(text) > MAX_CHARACTERS:
        return Drop("too_long", score=len(text))
    address = normalize_url(url)
    return document.with_text(text).with_metadata(normalized_url=address, subset=subset(address))


def page_text(text: str) -> str:
    """Return the lines of a WET record, stripped, without blank lines and lines of the archive."""
    lines = (line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    return "\n".join(line for line in lines if line and not line.startswith(_HEADER_STARTS))


def normalize_url(url: str) -> str:
    """Return an address without scheme, `www.`, tracking parameters and final slash.

    As in the code of record a scheme goes wherever it stands, so an archived page and its archive share the
    rest of their address.
    """
    return _TRACKING.sub("", _SCHEME.sub("", url)).rstrip("/")


def subset(normalized_url: str) -> str:
    """Return `validation` for one address in a thousand, `train` for the others."""
    return "train" if int(hashlib.md5(normalized_url.encode()).hexdigest(), 16) % 1000 else "validation"
