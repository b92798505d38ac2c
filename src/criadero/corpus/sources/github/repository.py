"""The files of one repository, from an archive or folder, each with the licence it is under.

Entry point: `read_repository`. An archive is gone through twice: first for the licences, which may stand at
its end, then for the files. The licence of a file is that of the nearest folder above it which declares one:
by package metadata, else by the texts of its LICENSE and COPYING files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from criadero.corpus.document import BadRecord, Document
from criadero.corpus.sources.github import licence
from criadero.corpus.sources.github.archives import Limits, Member, members
from criadero.corpus.sources.github.filters import is_licence_file
from criadero.corpus.sources.github.languages import language_of
from criadero.corpus.sources.github.licence import Licence

_METADATA_NAMES = {"METADATA", "PKG-INFO", "package.json"}
# A folder of a package's metadata speaks for the folder it lies in.
_METADATA_FOLDERS = (".dist-info", ".egg-info")
UNKNOWN = Licence("", "")


@dataclass(frozen=True)
class _Survey:
    """What the first pass found.

    Attributes:
        prefix: the folder all files are in, which archives of repositories add; empty if there is none.
        licences: by folder; `UNKNOWN` for a licence text nobody knows.
    """

    prefix: str
    licences: dict[str, Licence]

    def licence_of(self, path: str) -> Licence:
        for folder in PurePosixPath(path).parents:
            if (found := self.licences.get(folder.as_posix())) is not None:
                return found
        return UNKNOWN


def read_repository(path: Path, repo: str, *, source: str, limits: Limits) -> Iterator[Document | BadRecord]:
    """Yield the files of an archive or folder as documents.

    Those of no known language come without their text: nothing of theirs is ever used.
    """
    survey = _survey(path, limits)
    for member in members(path, repo, lambda name: language_of(name) is not None, limits=limits):
        if isinstance(member, BadRecord):
            yield member
            continue
        inside = member.path.removeprefix(survey.prefix)
        text = decode(member.data or b"")
        if text is None:
            yield BadRecord(f"{repo}:{inside}", "not_text", "not UTF-8, or with NUL characters")
            continue
        declared = survey.licence_of(member.path)
        yield make_document(text, f"{repo}:{inside}", repo=repo, path=inside, source=source, licence=declared)


def make_document(
    text: str, identity: str, *, repo: str, path: str, source: str, licence: Licence
) -> Document:
    """Return the document of a file."""
    language = language_of(path)
    metadata = {
        "repo": repo,
        "path": path,
        "language": language.name if language else "",
        "licence": licence.expression,
        "licence_from": licence.found_in,
    }
    return Document(identity, text, source, metadata)


def decode(data: bytes) -> str | None:
    """Return bytes as text without byte order mark, None for what is not UTF-8 or not text."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _survey(path: Path, limits: Limits) -> _Survey:
    declared: dict[str, str] = {}
    texts: dict[str, list[str | None]] = {}
    tops: set[str] = set()
    for member in members(path, "", _tells_licence, limits=limits):
        if isinstance(member, BadRecord):
            continue
        tops.add(member.path.partition("/")[0] if "/" in member.path else "")
        if len(tops) > 1:
            tops = {"", "several"}
        if member.data is not None:
            _note(member, declared, texts)
    licences = {folder: _of_texts(found) for folder, found in texts.items()}
    licences |= {folder: Licence(expression, "metadata") for folder, expression in declared.items()}
    prefix = f"{next(iter(tops))}/" if len(tops) == 1 and "" not in tops and path.is_file() else ""
    return _Survey(prefix, licences)


def _tells_licence(path: str) -> bool:
    return is_licence_file(path) or PurePosixPath(path).name in _METADATA_NAMES


def _note(member: Member, declared: dict[str, str], texts: dict[str, list[str | None]]) -> None:
    """Remember what a file says about the licence of the folder it speaks for."""
    data = member.data or b""
    folder = _speaks_for(member.path)
    if PurePosixPath(member.path).name in _METADATA_NAMES:
        if expression := licence.of_metadata(member.path, data):
            declared.setdefault(folder, expression)
        return
    found = licence.of_text(data.decode("utf-8", "replace"))
    # A page called license.md below the root may as well be documentation.
    if found is None and language_of(member.path) is not None and folder != ".":
        return
    texts.setdefault(folder, []).append(found)


def _speaks_for(path: str) -> str:
    folder = PurePosixPath(path).parent
    for above in (folder, folder.parent):
        if above.name.endswith(_METADATA_FOLDERS) and (above == folder or folder.name == "licenses"):
            return above.parent.as_posix()
    return folder.as_posix()


def _of_texts(found: list[str | None]) -> Licence:
    """Return all of several licences, nothing if one is not known."""
    known = sorted({name for name in found if name is not None})
    return UNKNOWN if None in found else Licence(" AND ".join(known), "text")
