"""The recipe for GitHub: source files under permissive licences, without their licence headers, once each.

Entry points: `GitHubConfig`, `stages`. Inputs are archives of repositories and packages, folders of them,
checked-out folders, and exports of BigQuery's `github_repos` as JSON lines or Parquet (LLaMA 2.1 took that
table, Apache, BSD and MIT).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from criadero.config import Config
from criadero.corpus.document import BadRecord, Document
from criadero.corpus.engine.stage import Each, Exchange, Read, Reader, Recipe, Split
from criadero.corpus.sources.github import archives, export
from criadero.corpus.sources.github.archives import Limits
from criadero.corpus.sources.github.dedup import make_dedup
from criadero.corpus.sources.github.export import read_export
from criadero.corpus.sources.github.filters import make_file_type, make_generated, make_quality
from criadero.corpus.sources.github.header import make_header
from criadero.corpus.sources.github.licence import PERMISSIVE
from criadero.corpus.sources.github.permission import make_permission
from criadero.corpus.sources.github.repository import read_repository
from criadero.errors import DataError


class GitHubConfig(Config):
    """A source of kind `github`.

    Attributes:
        kind: names this kind of source.
        licences: SPDX identifiers a file may be under.
        drop_generated: leave out generated, minified and vendored files, which LLaMA does not mention.
        max_file_bytes: longest file that is read; BigQuery has none above a megabyte.
        max_members: files of one archive.
        max_ratio: bytes an archive may unpack to for each of its own.
    """

    kind: Literal["github"] = "github"
    licences: tuple[str, ...] = Field(default=PERMISSIVE, min_length=1)
    drop_generated: bool = False
    max_file_bytes: int = Field(default=1 << 20, gt=0)
    max_members: int = Field(default=200_000, gt=0)
    max_ratio: int = Field(default=200, gt=0)


def stages(config: GitHubConfig, *, source: str, inputs: Sequence[Path | str]) -> Recipe:
    """Return the recipe; each archive, repository or export is one split.

    Raises:
        DataError: an input is missing or is none of these.
    """
    settings = {
        "source": source,
        "file_bytes": config.max_file_bytes,
        "members": config.max_members,
        "ratio": config.max_ratio,
    }
    generated = (Each("generated", make_generated),) if config.drop_generated else ()
    return (
        Read(_splits(inputs), make_reader, settings),
        Each("file_type", make_file_type),
        Each("licence", make_permission, {"allowed": list(config.licences)}),
        *generated,
        Each("header", make_header),
        Each("quality", make_quality),
        Exchange("dedup", make_dedup),
    )


def make_reader(*, source: str, file_bytes: int, members: int, ratio: int) -> Reader:
    """Return the function that reads one archive, folder or export."""
    limits = Limits(file_bytes, members, ratio)

    def read(split: Split) -> Iterator[Document | BadRecord]:
        path = Path(split.path)
        if split.parts["is_export"]:
            yield from read_export(path, split.name, source=source, max_file_bytes=file_bytes)
        else:
            yield from read_repository(path, split.name, source=source, limits=limits)

    return read


def _splits(inputs: Sequence[Path | str]) -> tuple[Split, ...]:
    paths = sorted({file for path in inputs for file in _units(Path(path).absolute())})
    names = _names(paths)
    return tuple(
        sorted(
            (Split(names[path], str(path), parts={"is_export": _is_export(path)}) for path in paths),
            key=lambda split: split.name,
        )
    )


def _units(path: Path) -> list[Path]:
    """Return what is read as one: an archive, an export, those in a folder, or a repository's folder."""
    if not path.exists():
        raise DataError(f"`{path}` does not exist")
    if path.is_dir():
        inside = sorted(path.iterdir())
        # Exports by suffix alone: a repository has .json files too.
        packed = [file for file in inside if file.is_file() and file.name.endswith(archives.SUFFIXES)]
        if not packed and inside and all(file.is_file() and _is_export(file) for file in inside):
            return inside
        folders = [file for file in inside if file.is_dir() and not file.name.startswith(".")]
        if packed or (folders and not any(file.is_file() for file in inside)):
            return [*packed, *folders]
        return [path]
    if not path.name.endswith((*archives.SUFFIXES, *export.SUFFIXES)):
        known = ", ".join((*archives.SUFFIXES, *export.SUFFIXES))
        raise DataError(f"`{path}` has no source files to read", hint=f"readable are folders, {known}")
    return [path]


def _is_export(path: Path) -> bool:
    return path.is_file() and path.name.endswith(export.SUFFIXES)


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """Call each by its own name, by its path below what all share where two have the same."""
    short: dict[str, list[Path]] = {}
    for path in paths:
        short.setdefault(_plain(path), []).append(path)
    shared = os.path.commonpath([path.parent for path in paths]) if paths else ""
    return {
        path: name if len(same) == 1 else path.relative_to(shared).as_posix()
        for name, same in short.items()
        for path in same
    }


def _plain(path: Path) -> str:
    """Return a name without suffix, of a wheel without the tags of Python and system."""
    suffix: Any = next((each for each in archives.SUFFIXES if path.name.endswith(each)), "")
    name = path.name.removesuffix(suffix) if path.is_file() else path.name
    return "-".join(name.split("-")[:2]) if suffix == ".whl" else name
