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
    _take_away(folder)
    with files.atomic_folder(folder) as aside:
        for path, name in parts:
            _link(path, aside / name)
        if manifest is not None:
            files.write_json(aside / MANIFEST, manifest)


def _take_away(folder: Path) -> None:
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


def is_published(folder: Path, key: str) -> dict[str, Any] | None:
    """Return the manifest of a finished source if it was made under this key and its parts are there."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    manifest = files.read_json(path)
    if not isinstance(manifest, dict) or manifest.get("key") != key:
        return None
    try:
        same = all((folder / p["name"]).stat().st_size == p["size_bytes"] for p in manifest["parts"])
    except (OSError, KeyError, TypeError):
        return None
    return manifest if same else None


def part_entries(done: Sequence[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Return the manifest's entries for the final documents of each map task."""
    entries = []
    for number, entry in enumerate(done):
        file = next(f for f in entry["files"] if f["name"] == name)
        entries.append(
            {
                "name": f"part-{number:05d}.parquet",
                "documents": entry["result"]["documents"],
                "size_bytes": file["size_bytes"],
                "sha256": file["sha256"],
            }
        )
    return entries
