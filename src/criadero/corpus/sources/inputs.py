"""The files a recipe reads, found below its inputs and called by names that tell them apart.

Entry point: `input_files`. A name is the path below the folder that all inputs share, so that ids made of it
are the same wherever the inputs lie.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from criadero.errors import DataError


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file to read and the name its documents carry."""

    path: Path
    name: str


def input_files(inputs: Sequence[Path | str], suffixes: tuple[str, ...]) -> list[InputFile]:
    """Return every file of `inputs`, and below those that are folders, once and in order of name.

    Raises:
        DataError: an input is missing, or has no file that ends in one of `suffixes`.
    """
    paths = [Path(path).absolute() for path in inputs]
    found = {file for path in paths for file in _readable(path, suffixes)}
    shared = os.path.commonpath([path.parent for path in paths]) if paths else ""
    named = [InputFile(path, path.relative_to(shared).as_posix()) for path in found]
    return sorted(named, key=lambda file: file.name)


def _readable(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    if not path.exists():
        raise DataError(f"`{path}` does not exist")
    candidates = path.rglob("*") if path.is_dir() else [path]
    found = [file for file in candidates if file.name.endswith(suffixes) and file.is_file()]
    if not found:
        where = " in it" if path.is_dir() else ""
        raise DataError(f"`{path}` has nothing to read{where}", hint=f"readable are {', '.join(suffixes)}")
    return found
