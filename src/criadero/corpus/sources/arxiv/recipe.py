"""The recipe of arXiv: `kind = "arxiv"`, bulk source tars, or single papers as archives and TeX files.

Entry points: `ArxivConfig` for the settings, `stages` for the recipe. LaTeX as in LLaMA 2.1: text from the
first section to the bibliography, without comments, user macros and definitions expanded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from criadero.config import Config
from criadero.corpus.engine.stage import Each, Read, Recipe, Split
from criadero.corpus.sources.arxiv.clean import make_cleaner
from criadero.corpus.sources.arxiv.read import make_reader, paper_id
from criadero.errors import DataError

# Work of some seconds for one task.
PAPERS_PER_SPLIT = 100
_SINGLE_SUFFIXES = (".gz", ".tgz", ".tex", ".ltx", ".latex", ".rnw", ".snw", ".pdf")


class ArxivConfig(Config):
    """A source of kind `arxiv`.

    Attributes:
        kind: names this kind of source.
        include_abstract: begin at the abstract where there is one, not at the first section.
        drop_appendix: end at the first appendix or bibliography, as RedPajama does; LLaMA 2.1 names the
            bibliography only.
    """

    kind: Literal["arxiv"] = "arxiv"
    include_abstract: bool = False
    drop_appendix: bool = False


def stages(config: ArxivConfig, *, source: str, inputs: Sequence[Path | str]) -> Recipe:
    """Return the recipe: one split for each tar of papers, one for every hundred single papers.

    Raises:
        DataError: an input is missing, or there are no papers.
    """
    files = _files([Path(path) for path in inputs])
    settings = {"include_abstract": config.include_abstract, "drop_appendix": config.drop_appendix}
    return (
        Read(splits=tuple(_splits(files)), make=make_reader, settings={"source": source}),
        Each("clean", make_cleaner, settings),
    )


def _files(inputs: Sequence[Path]) -> list[tuple[str, Path]]:
    """Return every file once, named by its path below the folder that all inputs share."""
    missing = [path for path in inputs if not path.exists()]
    if missing:
        raise DataError(f"`{missing[0]}` does not exist")
    folders = [path if path.is_dir() else path.parent for path in (path.absolute() for path in inputs)]
    shared = os.path.commonpath(folders) if folders else ""
    found = {
        file.absolute()
        for path in inputs
        for file in (path.rglob("*") if path.is_dir() else [path])
        if file.name.lower().endswith((".tar", *_SINGLE_SUFFIXES)) and file.is_file()
    }
    if not found:
        raise DataError(
            f"no papers in {', '.join(f'`{path}`' for path in inputs)}",
            hint=f"readable are .tar of many papers, and of one {', '.join(_SINGLE_SUFFIXES)}",
        )
    return [(path.relative_to(shared).as_posix(), path) for path in sorted(found)]


def _splits(files: Sequence[tuple[str, Path]]) -> Iterator[Split]:
    for name, path in files:
        if path.suffix.lower() == ".tar":
            yield Split(name=name, path=str(path))
    singles = _named([(name, path) for name, path in files if path.suffix.lower() != ".tar"])
    for start in range(0, len(singles), PAPERS_PER_SPLIT):
        part = singles[start : start + PAPERS_PER_SPLIT]
        yield Split(name=part[0][1], path=str(Path(part[0][2]).parent), parts={"files": part})


def _named(files: Sequence[tuple[str, Path]]) -> list[list[str]]:
    """Return identity, name and path of each file; one named for a paper that is there already is a file."""
    seen: set[str] = set()
    found = []
    for name, path in files:
        identity = name if paper_id(name) in seen else paper_id(name)
        seen.add(identity)
        found.append([identity, name, str(path)])
    return found
