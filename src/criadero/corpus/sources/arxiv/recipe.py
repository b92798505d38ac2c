"""The recipe of arXiv: `kind = "arxiv"`, bulk source tars, or single papers as archives and TeX files.

Entry points: `ArxivConfig` for the settings, `stages` for the recipe. LaTeX as in LLaMA 2.1: text from the
first section to the bibliography, without comments, user macros and definitions expanded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal

from criadero.config import Config
from criadero.corpus.engine.stage import Each, Read, Recipe, Split
from criadero.corpus.sources.arxiv.clean import make_cleaner
from criadero.corpus.sources.arxiv.read import make_reader, paper_id
from criadero.corpus.sources.inputs import InputFile, input_files

# Work of some seconds for one task.
PAPERS_PER_SPLIT = 100
_SINGLE_SUFFIXES = (".gz", ".tgz", ".tex", ".ltx", ".latex", ".Rnw", ".rnw", ".Snw", ".snw", ".pdf")


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
    """Return the recipe: one split for each tar of papers, one for every hundred single papers of a folder.

    Raises:
        DataError: an input is missing, or there are no papers.
    """
    files = input_files(inputs, (".tar", *_SINGLE_SUFFIXES))
    settings = {"include_abstract": config.include_abstract, "drop_appendix": config.drop_appendix}
    return (
        Read(splits=tuple(_splits(files)), make=make_reader, settings={"source": source}),
        Each("clean", make_cleaner, settings),
    )


def _splits(files: Sequence[InputFile]) -> Iterator[Split]:
    for file in files:
        if file.path.suffix == ".tar":
            yield Split(name=file.name, path=str(file.path))
    singles = [file for file in files if file.path.suffix != ".tar"]
    identities = _identities(singles)
    for folder, found in groupby(sorted(singles, key=_folder), key=_folder):
        named = [[identities[file.name], file.name, file.path.name] for file in found]
        for start in range(0, len(named), PAPERS_PER_SPLIT):
            part = named[start : start + PAPERS_PER_SPLIT]
            paths = tuple(str(folder / name) for _, _, name in part)
            yield Split(name=part[0][1], path=str(folder), parts={"files": part}, files=paths)


def _folder(file: InputFile) -> Path:
    return file.path.parent


def _identities(files: Sequence[InputFile]) -> dict[str, str]:
    """Return the paper each file is named for; one that is there already is called by its name."""
    found: dict[str, str] = {}
    papers: set[str] = set()
    for name in (file.name for file in files):
        paper = paper_id(name)
        found[name] = name if paper in papers else paper
        papers.add(paper)
    return found
