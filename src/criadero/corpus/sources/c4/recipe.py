"""The recipe for C4: the released files as they are, or the same corpus made again from WET archives.

Entry points: `C4Config`, `stages`. LLaMA very likely took the release (LLaMA 2.1), which has been through all
stages already. Made from WET a page meets, in the order of the code of record: its length, one page for each
address, cleaning line by line, one page for each line, language, and bad words if a list is given. Pages keep
the subset, train or validation, that their address puts them in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from criadero.config import Config
from criadero.corpus.document import BadRecord, Document
from criadero.corpus.engine.stage import Each, Exchange, Read, Reader, Recipe, Split
from criadero.corpus.sources.c4.bad_words import make_bad_words, read_list
from criadero.corpus.sources.c4.clean import make_clean
from criadero.corpus.sources.c4.dedup import make_line_dedup, make_url_dedup
from criadero.corpus.sources.c4.language import make_language
from criadero.corpus.sources.c4.page import make_page
from criadero.corpus.sources.commoncrawl.frames import MAX_RECORD_BYTES
from criadero.corpus.sources.commoncrawl.inputs import splits
from criadero.corpus.sources.commoncrawl.pages import make_reader
from criadero.corpus.sources.inputs import input_files
from criadero.corpus.sources.records import Place, open_bytes, read_jsonl
from criadero.notices import say_once

# Released pages have at most 190,000 characters; JSON spells one with up to twelve bytes.
MAX_LINE_BYTES = 1 << 23
_RELEASED = tuple(f".{kind}{end}" for kind in ("json", "jsonl") for end in ("", ".gz", ".zst"))


class C4Config(Config):
    """A source of kind `c4`.

    Attributes:
        kind: names this kind of source.
        made_from: `release`, files of allenai/c4 with `text`, `timestamp` and `url`; or `wet`, archives of
            CommonCrawl.
        bad_words: a list for pages made from WET, one word or phrase a line; without it no such step.
        base: what the paths in a crawl's own list (`wet.paths.gz`) are relative to.
        downloads: folder for archives that are URLs or named by such a list.
    """

    kind: Literal["c4"] = "c4"
    made_from: Literal["release", "wet"] = "release"
    bad_words: Path | None = None
    base: str = "https://data.commoncrawl.org/"
    downloads: Path | None = None


def stages(config: C4Config, *, source: str, inputs: Sequence[Path | str]) -> Recipe:
    """Return the recipe; each file is one split. Archives may be files, folders, URLs and lists of paths.

    Raises:
        DataError: an input is missing or has nothing to read, or the list of bad words cannot be used.
    """
    if config.made_from == "release":
        if config.bad_words is not None:
            say_once("`bad_words` has no effect on C4 as released, which has been through that step")
        files = input_files(inputs, _RELEASED)
        parts = tuple(Split(name=file.name, path=str(file.path)) for file in files)
        return (Read(parts, make_release_reader, {"source": source}),)
    cleaning = (
        Each("page", make_page),
        Exchange("url_dedup", make_url_dedup),
        Each("clean", make_clean),
        Exchange("line_dedup", make_line_dedup),
        Each("language", make_language, score="language_probability"),
    )
    return (_read_wet(config, source, inputs), *cleaning, *_bad_words(config))


def make_release_reader(*, source: str) -> Reader:
    """Return the function that reads a released file; ids are `file:line`, `url` and `timestamp` metadata."""

    def read(split: Split) -> Iterator[Document | BadRecord]:
        place = Place(split.name, source, MAX_LINE_BYTES, keep_ids=False)
        try:
            stream = open_bytes(Path(split.path))
        except OSError as problem:
            yield BadRecord(split.name, "unreadable", f"cannot be read: {problem}")
            return
        with stream:
            yield from read_jsonl(stream, place)

    return read


def _read_wet(config: C4Config, source: str, inputs: Sequence[Path | str]) -> Read:
    """Return how archives are read: as for CommonCrawl, with all the text of a page that comes as HTML."""
    settings = {
        "source": source,
        "max_record_bytes": MAX_RECORD_BYTES,
        "main_content": False,
        "downloads": str(config.downloads) if config.downloads else None,
    }
    return Read(splits(inputs, base=config.base, downloads=config.downloads), make_reader, settings)


def _bad_words(config: C4Config) -> tuple[Each, ...]:
    if config.bad_words is None:
        say_once("C4 is made without its bad-word filter: `bad_words` names no list")
        return ()
    read_list(config.bad_words)
    return (Each("bad_words", make_bad_words, {"path": str(config.bad_words)}, files=(config.bad_words,)),)
