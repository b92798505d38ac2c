"""Small MediaWiki exports for tests, written out by hand as Wikimedia's own are."""

from __future__ import annotations

import bz2
from html import escape
from pathlib import Path

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" version="0.10" xml:lang="de">
  <siteinfo>
    <sitename>Wikipedia</sitename>
    <dbname>dewiki</dbname>
    <namespaces>
      <namespace key="-2" case="first-letter">Medium</namespace>
      <namespace key="0" case="first-letter" />
      <namespace key="6" case="first-letter">Datei</namespace>
      <namespace key="14" case="first-letter">Schublade</namespace>
    </namespaces>
  </siteinfo>
"""
TAIL = "</mediawiki>\n"


def page(number: int, text: str, *, title: str = "", namespace: int = 0, redirect: str = "") -> str:
    """Return one `<page>` element."""
    return f"""  <page>
    <title>{escape(title or f"Title {number}")}</title>
    <ns>{namespace}</ns>
    <id>{number}</id>
    {f'<redirect title="{escape(redirect)}" />' if redirect else ""}
    <revision>
      <id>{number + 1000}</id>
      <contributor><username>Somebody</username><id>7</id></contributor>
      <text xml:space="preserve">{escape(text)}</text>
    </revision>
  </page>
"""


def write_plain(path: Path, *pages: str) -> Path:
    """Write a dump that is one bz2 stream."""
    path.write_bytes(bz2.compress((HEAD + "".join(pages) + TAIL).encode()))
    return path


def write_multistream(path: Path, *streams: str) -> list[int]:
    """Write a dump of several streams, head and tail in their own as Wikimedia does; return their offsets."""
    compressed = [bz2.compress(part.encode()) for part in (HEAD, *streams, TAIL)]
    path.write_bytes(b"".join(compressed))
    return [sum(map(len, compressed[:number])) for number in range(len(compressed))]
