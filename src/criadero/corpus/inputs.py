"""The raw inputs of a recipe: what its globs match, and the hash of every file.

Entry points: `find_inputs`, which names everything that is missing before any work starts, and
`describe_inputs`, with the hashes.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from criadero.config import Config
from criadero.corpus.config import CorpusConfig
from criadero.corpus.engine.journal import Journal
from criadero.errors import DataError

Input: TypeAlias = Path | str
"""A local file or folder, or a URL."""


class InputFile(Config):
    """A raw file: its path or URL, size in bytes and sha256; of a URL only the name is known."""

    name: str
    size_bytes: int | None = None
    sha256: str | None = None


def find_inputs(config: CorpusConfig) -> dict[str, tuple[Input, ...]]:
    """Return what the inputs of every source match, in the recipe's order, what a glob matches by name.

    Raises:
        DataError: listing every input that matches nothing.
    """
    found: dict[str, tuple[Input, ...]] = {}
    faults = []
    for name, source in config.sources.items():
        matches = {pattern: _matching(pattern) for pattern in source.inputs}
        faults += [f"`sources.{name}.inputs`: nothing at `{p}`" for p, match in matches.items() if not match]
        found[name] = tuple(dict.fromkeys(i for match in matches.values() for i in match))
    if config.decontaminate is not None and not config.decontaminate.benchmarks.exists():
        faults.append(f"`decontaminate.benchmarks`: `{config.decontaminate.benchmarks}` does not exist")
    if faults:
        raise DataError(
            "the recipe names what is not there:\n" + "\n".join(f"  - {fault}" for fault in faults),
            hint="paths are relative to the recipe file",
        )
    return found


def _matching(pattern: str) -> list[Input]:
    if "://" in pattern:
        return [pattern]
    path = Path(pattern)
    if path.exists():
        return [path]
    return [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]


def files_of(inputs: Iterable[Input]) -> list[Input]:
    """Return the files among and below `inputs`, sorted; URLs as they are."""
    found: set[Input] = set()
    for entry in inputs:
        inside = isinstance(entry, Path) and entry.is_dir()
        found |= {f for f in entry.rglob("*") if f.is_file()} if inside else {entry}  # type: ignore[union-attr]
    return sorted(found, key=str)


def total_bytes(inputs: Iterable[Iterable[Input]]) -> int:
    """Return the size of all local files of all sources."""
    everything = {f for found in inputs for f in files_of(found)}
    return sum(f.stat().st_size for f in everything if isinstance(f, Path))


def describe_inputs(
    inputs: Mapping[str, Sequence[Input]], journal: Journal, *, tick: Callable[[], None]
) -> dict[str, tuple[InputFile, ...]]:
    """Return name, size and hash of every file of every source; those hashed before are not read again."""
    listed = {source: files_of(found) for source, found in inputs.items()}
    local = (str(f) for found in listed.values() for f in found if isinstance(f, Path))
    hashes = journal.input_hashes(local, tick=tick)
    return {source: tuple(_describe(f, hashes) for f in found) for source, found in listed.items()}


def _describe(entry: Input, hashes: Mapping[str, str]) -> InputFile:
    if isinstance(entry, str):
        return InputFile(name=entry)
    return InputFile(name=str(entry), size_bytes=entry.stat().st_size, sha256=hashes[str(entry)])
