"""The recipe for people's own data: `kind = "text"`, folders and globs of .txt, .jsonl and .parquet files.

Entry points: `TextConfig` for the settings, `stages` for the recipe. Big uncompressed .jsonl files are cut
into ranges of bytes at line borders, Parquet files into ranges of row groups; every other file is read by one
task. Nothing is cleaned: what came as text leaves as it came.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from criadero.config import Config
from criadero.corpus.document import BadRecord, Document
from criadero.corpus.engine.stage import Read, Reader, Recipe, Split
from criadero.corpus.sources.inputs import InputFile, input_files
from criadero.corpus.sources.parquet import read_parquet, row_groups
from criadero.corpus.sources.records import Place, open_bytes, read_jsonl
from criadero.corpus.sources.text import SUFFIXES, read_file

# Work of some seconds for one task, and little to do again when it is lost.
SPLIT_BYTES = 1 << 26
# A task holds a few records at a time; the longest novels have ten megabytes.
MAX_RECORD_BYTES = 1 << 26


class TextConfig(Config):
    """A source of kind `text`: files that hold documents already.

    Attributes:
        kind: names this kind of source.
        ids: `record` keeps the id a record has, `place` names every one by file and position instead, for
            files whose ids are not unique.
    """

    kind: Literal["text"] = "text"
    ids: Literal["record", "place"] = "record"


def stages(config: TextConfig, *, source: str, inputs: Sequence[Path | str]) -> Recipe:
    """Return the recipe that reads `inputs`, files or folders, in order of their names.

    Raises:
        DataError: an input is missing, or has nothing to read.
    """
    splits = [split for file in input_files(inputs, SUFFIXES) for split in _splits(file)]
    settings = {"source": source, "keep_ids": config.ids == "record"}
    return (Read(splits=tuple(splits), make=make_reader, settings=settings),)


def make_reader(*, source: str, keep_ids: bool) -> Reader:
    """Return the function that reads one split."""

    def read(split: Split) -> Iterator[Document | BadRecord]:
        name = str(split.parts["name"])
        place = Place(name, source, MAX_RECORD_BYTES, naming="offset", keep_ids=keep_ids)
        path = Path(split.path)
        if split.start == 0 and split.stop is None:
            yield from read_file(path, place)
        elif path.suffix == ".parquet":
            yield from read_parquet(path, place, start=split.start, stop=split.stop)
        else:
            with open_bytes(path) as stream:
                yield from read_jsonl(stream, place, start=split.start, stop=split.stop)

    return read


def _splits(file: InputFile) -> Iterator[Split]:
    for start, stop in _ranges(file.path):
        whole = start == 0 and stop is None
        yield Split(
            name=file.name if whole else f"{file.name}@{start}",
            path=str(file.path),
            start=start,
            stop=stop,
            parts={"name": file.name},
        )


def _ranges(path: Path) -> list[tuple[int, int | None]]:
    """Return where to cut: bytes of a .jsonl file, row groups of a Parquet file; else one open range."""
    if path.suffix == ".jsonl":
        size_bytes = path.stat().st_size
        if size_bytes > SPLIT_BYTES:
            return [(at, min(at + SPLIT_BYTES, size_bytes)) for at in range(0, size_bytes, SPLIT_BYTES)]
    if path.suffix == ".parquet":
        cuts, gathered = [0], 0
        sizes = row_groups(path)
        for number, size_bytes in enumerate(sizes):
            if gathered and gathered + size_bytes > SPLIT_BYTES:
                cuts.append(number)
                gathered = 0
            gathered += size_bytes
        if len(cuts) > 1:
            return list(zip(cuts, [*cuts[1:], len(sizes)], strict=True))
    return [(0, None)]
