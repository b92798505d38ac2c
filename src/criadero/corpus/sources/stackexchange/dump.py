"""Dump files: which sites are there, and the bytes of a site's Posts.xml, plain or inside a .7z archive.

Entry points: `find_sites`, `largest_sites`, `parse_posts`. An archive is never unpacked: py7zr decompresses
its Posts.xml in pieces of bounded size, which are parsed as they come.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from criadero.corpus.document import BadRecord
from criadero.corpus.extra import require_extra
from criadero.corpus.sources.stackexchange.posts import PostsParser, Row
from criadero.errors import DataError

logger = logging.getLogger("criadero")

# Posts of real dumps shrink five to eight times. Nothing is unpacked, so a small file may promise anything.
MAX_RATIO = 200
HARMLESS_BYTES = 1 << 26
_READ_BYTES = 1 << 20
_OTHER_TABLES = re.compile(r"-(Badges|Comments|PostHistory|PostLinks|Tags|Users|Votes)$")
_QUESTION, _ANSWER = "1", "2"


@dataclass(frozen=True)
class Site:
    """A site and the file that has its posts.

    Attributes:
        name: such as `cooking.stackexchange.com`.
        path: its Posts.xml, or the .7z that holds it.
    """

    name: str
    path: Path


def find_sites(inputs: Sequence[Path]) -> list[Site]:
    """Return the sites below the files and folders given, without meta sites, by name.

    Known are `SITE/Posts.xml`, `SITE.7z` and, where each table has its own archive, `SITE-Posts.7z`.

    Raises:
        DataError: an input is missing, none has posts, or two files have the posts of one site.
    """
    sites: dict[str, Site] = {}
    for path in inputs:
        if not path.exists():
            raise DataError(f"`{path}` does not exist")
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            name = _site_name(file)
            if name is None or "meta" in name.split("."):
                continue
            known = sites.setdefault(name, Site(name, file))
            if known.path != file:
                raise DataError(
                    f"the site {name} is there twice: `{known.path}` and `{file}`", hint="remove one of them"
                )
    if not sites:
        raise DataError(
            f"no posts in {', '.join(f'`{path}`' for path in inputs)}",
            hint="expected SITE/Posts.xml, SITE.7z or SITE-Posts.7z",
        )
    return sorted(sites.values(), key=lambda site: site.name)


def largest_sites(sites: Sequence[Site], count: int) -> list[Site]:
    """Return the `count` sites with the most questions and answers, by name; ties go to the first name.

    Tag wikis and other posts do not count. Reads every file once, unless all sites are taken.
    """
    if len(sites) <= count:
        return list(sites)
    logger.info("counting the posts of %s sites", len(sites))
    by_size = sorted(sites, key=lambda site: (-count_posts(site), site.name))
    largest = sorted(by_size[:count], key=lambda site: site.name)
    logger.info("the largest sites: %s", ", ".join(site.name for site in largest))
    return largest


def count_posts(site: Site) -> int:
    """Return how many readable rows are questions or answers."""
    found = 0

    def count(row: Row) -> None:
        nonlocal found
        found += row.get("PostTypeId") in (_QUESTION, _ANSWER)

    parse_posts(site, on_row=count, on_bad=lambda _: None)
    return found


def parse_posts(site: Site, *, on_row: Callable[[Row], None], on_bad: Callable[[BadRecord], None]) -> None:
    """Call `on_row` with the attributes of every row of the site's Posts.xml, in bounded memory.

    What cannot be read goes to `on_bad`; exceptions of the two functions are raised.
    """
    parser = PostsParser(f"{site.name}/Posts.xml", on_row=on_row, on_bad=on_bad)
    feed = _feed_archive if site.path.suffix == ".7z" else _feed_file
    fault = feed(site, parser)
    if fault is None:
        parser.close()
    else:
        on_bad(fault)


def _site_name(file: Path) -> str | None:
    if file.name == "Posts.xml":
        return file.absolute().parent.name
    if file.suffix == ".7z" and not _OTHER_TABLES.search(file.stem):
        return file.stem.removesuffix("-Posts")
    return None


def _feed_file(site: Site, parser: PostsParser) -> BadRecord | None:
    try:
        stream = site.path.open("rb")
    except OSError as problem:
        return BadRecord(site.name, "unreadable", str(problem))
    with stream:
        while not parser.gave_up:
            try:
                data = stream.read(_READ_BYTES)
            except OSError as problem:
                return BadRecord(site.name, "unreadable", str(problem))
            if not data:
                return None
            parser.feed(data)
    return None


def _feed_archive(site: Site, parser: PostsParser) -> BadRecord | None:
    with require_extra("reading a .7z archive"):
        import py7zr

        from criadero.corpus.sources.stackexchange.seven_zip import Feed, FeedFactory
    feed = Feed(parser)
    try:
        # An open file, not a path: py7zr then decompresses in this thread.
        with site.path.open("rb") as stream, py7zr.SevenZipFile(stream) as archive:
            members = [m for m in archive.list() if m.filename == "Posts.xml" and m.is_file]
            if len(members) != 1:
                return BadRecord(site.name, "no_posts", f"{len(members)} files Posts.xml in {site.path.name}")
            size_bytes = members[0].uncompressed
            if size_bytes > max(MAX_RATIO * site.path.stat().st_size, HARMLESS_BYTES):
                return BadRecord(site.name, "archive_bomb", f"{size_bytes:,} bytes are promised")
            archive.extract(targets=["Posts.xml"], factory=FeedFactory(feed))
    except Exception as problem:  # py7zr meets a damaged archive with exceptions of many kinds
        if feed.failure is not None:
            raise feed.failure from None
        if not parser.gave_up:
            return BadRecord(site.name, "bad_archive", f"{type(problem).__name__}: {problem}")
    return None
