"""The recipe for people's own data: `kind = "text"`, folders and globs of .txt, .jsonl and .parquet files.

Entry points: `TextConfig` for the settings, `stages` for the recipe. Big uncompressed .jsonl files are cut
into ranges of bytes at line borders, Parquet files into ranges of row groups; small files of one folder are
read by one task. Nothing is cleaned: what came as text leaves as it came.
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
    settings = {"source": source, "keep_ids": config.ids == "record"}
    splits = tuple(_splits(input_files(inputs, SUFFIXES)))
    return (Read(splits=splits, make=make_reader, settings=settings),)


def make_reader(*, source: str, keep_ids: bool) -> Reader:
    """Return the function that reads one split."""

    def read(split: Split) -> Iterator[Document | BadRecord]:
        for name, path in split.parts["files"]:
            place = Place(name, source, MAX_RECORD_BYTES, naming="offset", keep_ids=keep_ids)
            for found in _read_range(Path(split.path, path), place, split.start, split.stop):
                if isinstance(found, Document) and not found.text.strip():
                    yield BadRecord(found.id, "empty")
                else:
                    yield found

    return read


def _read_range(path: Path, place: Place, start: int, stop: int | None) -> Iterator[Document | BadRecord]:
    if start == 0 and stop is None:
        yield from read_file(path, place)
    elif path.suffix == ".parquet":
        yield from read_parquet(path, place, start=start, stop=stop)
    else:
        with open_bytes(path) as stream:
            yield from read_jsonl(stream, place, start=start, stop=stop)


def _splits(found: Sequence[InputFile]) -> Iterator[Split]:
    """Cut large files, and gather small ones that follow each other in a folder: a task has its price."""
    gathered: list[InputFile] = []
    gathered_bytes = 0
    for file in found:
        size_bytes = file.path.stat().st_size
        full = gathered_bytes + size_bytes > SPLIT_BYTES
        if gathered and (full or file.path.parent != gathered[0].path.parent):
            yield _gathered(gathered)
            gathered, gathered_bytes = [], 0
        if size_bytes <= SPLIT_BYTES:
            gathered.append(file)
            gathered_bytes += size_bytes
        else:
            yield from _cut(file)
    if gathered:
        yield _gathered(gathered)


def _gathered(found: Sequence[InputFile]) -> Split:
    named = [(f.name, str(f.path)) for f in found]
    return Split(
        found[0].name,
        str(found[0].path.parent),
        parts={"files": named},
        files=tuple(path for _, path in named),
    )


def _cut(file: InputFile) -> Iterator[Split]:
    for start, stop in _ranges(file.path):
        name = file.name if stop is None else f"{file.name}@{start}"
        yield Split(name, str(file.path), start, stop, {"files": [(file.name, str(file.path))]})


def _ranges(path: Path) -> list[tuple[int, int | None]]:
    """Return where to cut a large file: bytes of a .jsonl, row groups of a Parquet file; else nowhere."""
    if path.suffix == ".jsonl":
        size_bytes = path.stat().st_size
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
