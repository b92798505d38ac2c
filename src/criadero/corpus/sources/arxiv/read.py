"""Papers of one split: a tar of many, or a list of single files; a document is a paper's assembled LaTeX.

Entry point: `make_reader`. `criadero.corpus.sources.arxiv.clean` makes the text of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from criadero.corpus.document import BadRecord, Document
from criadero.corpus.engine.stage import Reader, Split
from criadero.corpus.sources.arxiv.archive import papers, unpack
from criadero.corpus.sources.arxiv.project import Failure, assemble

_NEW_ID = re.compile(r"\d{4}\.\d{4,5}(v\d+)?")
_OLD_ID = re.compile(r"([a-z-]+)(\d{7}(v\d+)?)")
_SUFFIXES = re.compile(r"(\.tar)?\.gz$|\.tgz$|\.tex$|\.pdf$")


def make_reader(*, source: str) -> Reader:
    """Return the function that reads one split; `source` is the name the documents carry."""

    def read(split: Split) -> Iterator[Document | BadRecord]:
        if "files" in split.parts:
            for identity, name, file in split.parts["files"]:
                yield from _read_file(_Place(identity, name, source), Path(split.path, file))
        else:
            yield from _read_tar(split, source)

    return read


@dataclass(frozen=True)
class _Place:
    """What a paper is called, and the file it is in."""

    identity: str
    name: str
    source: str


def _read_tar(split: Split, source: str) -> Iterator[Document | BadRecord]:
    seen: set[str] = set()
    for found in papers(Path(split.path)):
        if isinstance(found, BadRecord):
            yield found
            continue
        name, stream = found
        identity = paper_id(name)
        if identity in seen:
            yield BadRecord(f"{split.name}#{name[:200]}", "duplicate_id", f"a second {identity}")
            continue
        seen.add(identity)
        yield from _read_paper(_Place(identity, name, source), stream)


def paper_id(name: str) -> str:
    """Return the arXiv identifier that a file is named for, such as `0704.0001` or `hep-th/9901001`.

    A name of another form is returned as it is.
    """
    stem = _SUFFIXES.sub("", PurePosixPath(name).name)
    old = _OLD_ID.fullmatch(stem)
    if old is not None:
        return f"{old[1]}/{old[2]}"
    return stem if _NEW_ID.fullmatch(stem) else name


def _read_file(place: _Place, path: Path) -> Iterator[Document | BadRecord]:
    try:
        with path.open("rb") as stream:
            yield from _read_paper(place, stream)
    except OSError as problem:
        yield BadRecord(place.identity, "unreadable", str(problem))


def _read_paper(place: _Place, stream: IO[bytes]) -> Iterator[Document | BadRecord]:
    project = unpack(place.name, stream)
    if isinstance(project, Failure):
        yield BadRecord(place.identity, project.reason, project.detail)
        return
    for member in project.refused:
        yield BadRecord(f"{place.identity}#{member}", "unsafe_member")
    paper = assemble(project.files)
    if isinstance(paper, Failure):
        yield BadRecord(place.identity, paper.reason, paper.detail)
        return
    metadata = {"file": place.name, "main_file": paper.main, "files": ", ".join(paper.files)}
    if paper.missing:
        metadata["missing_files"] = ", ".join(paper.missing)
    if paper_id(place.name) != place.name:
        metadata["arxiv_id"] = paper_id(place.name)
    yield Document(place.identity, paper.text, place.source, metadata)
