"""The recipe of arXiv: `kind = "arxiv"`, bulk source tars, or single papers as archives and TeX files.

Entry points: `ArxivConfig` for the settings, `stages` for the recipe. LaTeX as in LLaMA 2.1: text from the
first section to the bibliography, without comments, user macros and definitions expanded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    """Return the recipe: one split for each tar of papers, one for every hundred single papers.

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
    singles = _named([file for file in files if file.path.suffix != ".tar"])
    for start in range(0, len(singles), PAPERS_PER_SPLIT):
        part = singles[start : start + PAPERS_PER_SPLIT]
        yield Split(name=part[0][1], path=str(Path(part[0][2]).parent), parts={"files": part})


def _named(files: Sequence[InputFile]) -> list[list[str]]:
    """Return identity, name and path of each file; one named for a paper that is there already is a file."""
    seen: set[str] = set()
    found = []
    for file in files:
        identity = file.name if paper_id(file.name) in seen else paper_id(file.name)
        seen.add(identity)
        found.append([identity, file.name, str(file.path)])
    return found
