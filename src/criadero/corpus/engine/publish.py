"""The finished source: documents, manifest and ledger appear under their names at once, or not at all.

documents/SOURCE/part-00000.parquet ... manifest.json     one part for each split, in order
ledger/SOURCE/00-00000.parquet ...                        one file for each segment and split
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from criadero import files
from criadero.corpus.engine.output import DOCUMENTS, LEDGER
from criadero.errors import ResourceError

MANIFEST = "manifest.json"


def publish(folder: Path, parts: Iterable[tuple[Path, str]], manifest: dict[str, Any] | None) -> None:
    """Make `folder` of files that exist elsewhere; what was there before is replaced.

    Args:
        folder: the final name.
        parts: a file and the name it gets.
        manifest: written beside them.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    files.remove_leftovers(folder.parent)
    take_away(folder)
    with files.atomic_folder(folder) as aside:
        for path, name in parts:
            _link(path, aside / name)
        if manifest is not None:
            files.write_json(aside / MANIFEST, manifest)


def take_away(folder: Path) -> None:
    """Take an older result away in one step, so that no half of it can be met."""
    if folder.exists():
        old = files.temporary_path(folder.with_name(f"{folder.name}.old"))
        folder.rename(old)
        shutil.rmtree(old, ignore_errors=True)


def _link(path: Path, target: Path) -> None:
    """Give a file a second name; where the file system has none, copy it."""
    with suppress(OSError):
        os.link(path, target)
        return
    try:
        shutil.copyfile(path, target)
    except OSError as problem:
        raise ResourceError(
            f"`{target}` could not be written: {problem.strerror}",
            hint="free some space; the same command goes on where this one stopped",
        ) from problem


def is_published(documents: Path, ledger: Path, key: str) -> dict[str, Any] | None:
    """Return the manifest of a finished source if it was made under this key and all its files are there."""
    path = documents / MANIFEST
    if not path.exists():
        return None
    manifest = files.read_json(path)
    if not isinstance(manifest, dict) or manifest.get("key") != key:
        return None
    try:
        same = all(
            (folder / part["name"]).stat().st_size == part["size_bytes"]
            for folder, parts in ((documents, manifest["parts"]), (ledger, manifest["ledger"]))
            for part in parts
        )
    except (OSError, KeyError, TypeError):
        return None
    return manifest if same else None


def document_entries(done: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the manifest's entries for the documents, from those of the journal for the last segment."""
    return [
        {
            "name": f"part-{number:05d}.parquet",
            "documents": entry["result"]["documents"],
            **_written(entry, DOCUMENTS),
        }
        for number, entry in enumerate(done)
    ]


def ledger_entries(done: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the manifest's entries for the ledger, from those of the journal for each segment and split."""
    return [
        {"name": f"{segment:02d}-{number:05d}.parquet", **_written(entry, LEDGER)}
        for segment, entries in enumerate(done)
        for number, entry in enumerate(entries)
    ]


def _written(entry: dict[str, Any], name: str) -> dict[str, Any]:
    """Return size and hash of a file that a task wrote."""
    (file,) = (file for file in entry["files"] if file["name"] == name)
    return {"size_bytes": file["size_bytes"], "sha256": file["sha256"]}
