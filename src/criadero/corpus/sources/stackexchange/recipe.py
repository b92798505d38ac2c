"""The recipe of StackExchange: `kind = "stackexchange"`, a dump as a folder, .7z archives or Posts.xml files.

Entry points: `StackExchangeConfig` for the settings, `stages` for the recipe. LLaMA 2.1: the 28 largest
sites, tags removed, answers by score. Which sites those are is computed from the dump.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from criadero.config import Config
from criadero.corpus.engine.stage import Each, Read, Recipe, Split
from criadero.corpus.sources.stackexchange.clean import Layout, make_cleaner
from criadero.corpus.sources.stackexchange.dump import find_sites, largest_sites
from criadero.corpus.sources.stackexchange.read import make_reader


class StackExchangeConfig(Config):
    """A source of kind `stackexchange`.

    Attributes:
        kind: names this kind of source.
        largest_sites: how many sites are taken, by their number of questions and answers; meta sites never.
            Where the dump has more, each file is read once to count.
        layout: `plain`, or like the public recreations, `redpajama` and `pile`.
        keep_unanswered: whether questions without answers are kept.
        memory_bytes: text of posts that a task holds before it sorts them to disk.
        scratch: folder for that, default the system's; a task needs about the size of its Posts.xml there.
    """

    kind: Literal["stackexchange"] = "stackexchange"
    largest_sites: int = Field(default=28, ge=1)
    layout: Layout = "plain"
    keep_unanswered: bool = True
    memory_bytes: int = Field(default=1 << 27, ge=1 << 16)
    scratch: Path | None = None


def stages(config: StackExchangeConfig, *, source: str, inputs: Sequence[Path | str]) -> Recipe:
    """Return the recipe: one split for each of the largest sites, by name.

    Raises:
        DataError: an input is missing, there are no posts, or one site is there twice.
    """
    sites = largest_sites(find_sites([Path(path) for path in inputs]), config.largest_sites)
    scratch = None if config.scratch is None else str(config.scratch)
    return (
        Read(
            splits=tuple(Split(name=site.name, path=str(site.path)) for site in sites),
            make=make_reader,
            settings={"source": source, "memory_bytes": config.memory_bytes, "scratch": scratch},
        ),
        Each("clean", make_cleaner, {"layout": config.layout, "keep_unanswered": config.keep_unanswered}),
    )
