"""Papers of one split: a tar of many, or a list of single files; a document is a paper's assembled LaTeX.

Entry point: `make_reader`. `criadero.corpus.sources.arxiv.clean` makes the text of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from criadero.corpus.document import BadRecord, Document
from criadero.corpus.engine.stage import Reader, Split
from criadero.corpus.sources.arxiv.archive import papers, unpack
from criadero.corpus.sources.arxiv.project import Failure, assemble

_NEW_ID = re.compile(r"\d{4}\.\d{4,5}(v\d+)?")
_OLD_ID = re.compile(r"([a-z-]+)(\d{7}(v\d+)?)")
_SUFFIXES = re.compile(r"(\.tar)?\.gz$|\.tgz$|\.(tex|ltx|latex|pdf)$")


def make_reader(*, source: str) -> Reader:
    """Return the function that reads one split; `source` is the name the documents carry."""

    def read(split: Split) -> Iterator[Document | BadRecord]:
        if "files" in split.parts:
            for name, path in split.parts["files"]:
                yield from _read_file(str(name), Path(path), source)
            return
        seen: set[str] = set()
        for found in papers(Path(split.path)):
            if isinstance(found, BadRecord):
                yield found
                continue
            name, stream = found
            if paper_id(name) in seen:
                yield BadRecord(f"{split.name}#{name[:200]}", "duplicate_id", f"a second {paper_id(name)}")
                continue
            seen.add(paper_id(name))
            yield from _read_paper(name, stream, source)

    return read


def paper_id(name: str) -> str:
    """Return the arXiv identifier that a file is named for, such as `0704.0001` or `hep-th/9901001`.

    A name of another form is returned as it is, without suffix.
    """
    stem = _SUFFIXES.sub("", PurePosixPath(name).name)
    old = _OLD_ID.fullmatch(stem)
    if old is not None:
        return f"{old[1]}/{old[2]}"
    return stem if _NEW_ID.fullmatch(stem) else _SUFFIXES.sub("", name)


def _read_file(name: str, path: Path, source: str) -> Iterator[Document | BadRecord]:
    try:
        with path.open("rb") as stream:
            yield from _read_paper(name, stream, source)
    except OSError as problem:
        yield BadRecord(name, "unreadable", str(problem))


def _read_paper(name: str, stream: IO[bytes], source: str) -> Iterator[Document | BadRecord]:
    identity = paper_id(name)
    project = unpack(name, stream)
    if isinstance(project, Failure):
        yield BadRecord(identity, project.reason, project.detail)
        return
    for member in project.refused:
        yield BadRecord(f"{identity}#{member}", "unsafe_member")
    paper = assemble(project.files)
    if isinstance(paper, Failure):
        yield BadRecord(identity, paper.reason, paper.detail)
        return
    metadata = {"file": name, "main_file": paper.main, "files": ", ".join(paper.files)}
    if paper.missing:
        metadata["missing_files"] = ", ".join(paper.missing)
    if _is_arxiv_id(identity):
        metadata["arxiv_id"] = identity
    yield Document(identity, paper.text, source, metadata)


def _is_arxiv_id(identity: str) -> bool:
    return bool(_NEW_ID.fullmatch(identity) or _OLD_ID.fullmatch(identity.replace("/", "", 1)))
