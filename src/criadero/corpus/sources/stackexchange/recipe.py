"""The recipe of StackExchange: `kind = "stackexchange"`, a dump as a folder, .7z archives or Posts.xml files.

Entry points: `StackExchangeConfig` for the settings, `stages` for the recipe. LLaMA 2.1: the 28 largest
sites, tags removed, answers by score. Which sites those are is computed from the dump.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from criadero.config import Config
from criadero.corpus.engine.stage import Each, Read, Recipe, Split
from criadero.corpus.sources.stackexchange.clean import Layout, make_cleaner
from criadero.corpus.sources.stackexchange.dump import Site, find_sites, largest_sites
from criadero.corpus.sources.stackexchange.read import make_reader
from criadero.errors import DataError

# About an hour's work. Parsing, which every part repeats, is ten times as fast as making text.
PART_BYTES = 1 << 33
MAX_PARTS = 16
_XML_OF_PACKED = 5


class StackExchangeConfig(Config):
    """A source of kind `stackexchange`.

    Attributes:
        kind: names this kind of source.
        sites: names of the sites that are taken, such as `cooking.stackexchange.com`; by default the largest.
        largest_sites: how many those are, by their number of questions and answers; meta sites never. Where
            the dump has more, each file is read to count, at every start: name them in `sites` then.
        layout: `plain`, or like the public recreations, `redpajama` and `pile`.
        keep_unanswered: whether questions without answers are kept.
        memory_bytes: text of posts that a task holds before it sorts them to disk.
        scratch: folder for that, default the system's; a task needs about the size of its Posts.xml there.
    """

    kind: Literal["stackexchange"] = "stackexchange"
    sites: tuple[str, ...] = ()
    largest_sites: int = Field(default=28, ge=1)
    layout: Layout = "plain"
    keep_unanswered: bool = True
    memory_bytes: int = Field(default=1 << 27, ge=1 << 16)
    scratch: Path | None = None


def stages(config: StackExchangeConfig, *, source: str, inputs: Sequence[Path | str]) -> Recipe:
    """Return the recipe: one split for each of the largest sites, by name, and several for a very large one.

    Raises:
        DataError: an input or a named site is missing, there are no posts, or one site is there twice.
    """
    found = find_sites([Path(path) for path in inputs])
    sites = _named(found, config.sites) if config.sites else largest_sites(found, config.largest_sites)
    scratch = None if config.scratch is None else str(config.scratch)
    return (
        Read(
            splits=tuple(split for site in sites for split in _splits(site)),
            make=make_reader,
            settings={"source": source, "memory_bytes": config.memory_bytes, "scratch": scratch},
        ),
        Each("clean", make_cleaner, {"layout": config.layout, "keep_unanswered": config.keep_unanswered}),
    )


def _splits(site: Site) -> Iterator[Split]:
    """Each part of a large site reads all its rows, which is quick, and makes text of its own questions."""
    size_bytes = site.path.stat().st_size * (_XML_OF_PACKED if site.path.suffix == ".7z" else 1)
    divisor = max(1, min(MAX_PARTS, size_bytes // PART_BYTES))
    for remainder in range(divisor):
        yield Split(
            name=site.name if divisor == 1 else f"{site.name}#{remainder}",
            path=str(site.path),
            parts={"site": site.name, "remainder": remainder, "divisor": divisor},
        )


def _named(found: Sequence[Site], names: Sequence[str]) -> list[Site]:
    by_name = {site.name: site for site in found}
    if missing := [name for name in names if name not in by_name]:
        raise DataError(f"no posts of the site {missing[0]}", hint=f"there are {', '.join(by_name)}")
    return [by_name[name] for name in sorted(set(names))]
