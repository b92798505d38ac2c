"""Keys: the sha256 of everything the result of a task depends on, so that nothing else is ever reused.

A task's key is made of its stages (functions, settings, files), its split with its number and the hash of the
raw input, the keys of the tasks before it, and the code of `criadero.corpus` with the libraries it uses.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import criadero.corpus
from criadero import files
from criadero.corpus.engine.segment import Segment
from criadero.corpus.engine.stage import Read, Split, Stage
from criadero.errors import DataError

_FORMAT = 1


@functools.cache
def code_version() -> str:
    """Return the sha256 over the code of `criadero.corpus`, Python and the libraries it uses."""
    root = Path(str(criadero.corpus.__file__)).parent
    lines = [f"{p.relative_to(root)} {files.sha256_file(p)}" for p in sorted(root.rglob("*.py"))]
    python = f"python {sys.version_info.major}.{sys.version_info.minor}"
    return files.sha256_bytes("\n".join([*lines, python, *_libraries()]).encode())


def _libraries() -> Iterator[str]:
    """Yield name and version of what cleans text: another version may clean it otherwise."""
    for requirement in sorted(metadata.requires("criadero") or ()):
        name = re.match(r"[\w.-]+", requirement)
        if name is not None and "extra == 'corpus'" in requirement.replace('"', "'"):
            found = list(metadata.distributions(name=name[0]))
            yield f"{name[0]} {found[0].version if found else 'missing'}"


def map_keys(
    segment: Segment,
    splits: Sequence[Split],
    *,
    hashes: Mapping[str, str],
    upstream: Sequence[Sequence[str]],
) -> list[str]:
    """Return the keys of the tasks that run the splits through a segment.

    Args:
        segment: the stages.
        splits: the splits.
        hashes: sha256 of the raw input and of the files of stages, by path.
        upstream: for each split the keys of the exchange and of the map task before.
    """
    stages = [_stage_identity(stage, hashes) for stage in segment.parts]
    return [
        _sha256(
            [segment.source, segment.number, stages, number, _split_identity(split, hashes), list(before)]
        )
        # Records and ledger carry the number of the split, so a split that moves is made again.
        for number, (split, before) in enumerate(zip(splits, upstream, strict=True))
    ]


def _split_identity(split: Split, hashes: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": split.name,
        "path": split.path,
        "start": split.start,
        "stop": split.stop,
        "parts": dict(split.parts),
        "sha256": [hashes[path] for path in split.reads],
    }


def exchange_key(segment: Segment, maps: Sequence[str], *, hashes: Mapping[str, str]) -> str:
    """Return the key of the decisions of the exchange that ends a segment, from the keys of all its maps."""
    assert segment.end is not None
    return _sha256([_stage_identity(segment.end, hashes), list(maps)])


def range_key(exchange: str, start: int, stop: int | None) -> str:
    """Return the key of one range of the keys of an exchange."""
    return _sha256([exchange, start, stop])


def _stage_identity(stage: Stage, hashes: Mapping[str, str]) -> dict[str, Any]:
    make = stage.make
    if "<" in make.__qualname__:
        raise DataError(
            f"`{stage.name}` is made by `{make.__qualname__}`, which other processes cannot import",
            hint="make it a function at the top of a module",
        )
    identity: dict[str, Any] = {
        "name": stage.name,
        "make": f"{make.__module__}.{make.__qualname__}",
        "code": _code_of(make),
        "settings": _without_places(stage),
    }
    if not isinstance(stage, Read):
        identity["files"] = [hashes[str(path)] for path in stage.files]
        identity["score"] = getattr(stage, "score", None)
    return identity


def _without_places(stage: Stage) -> dict[str, Any]:
    """Return the settings without where the stage's files are: their hashes say all, wherever they lie."""
    files_of_stage = () if isinstance(stage, Read) else stage.files
    places = {str(place) for path in files_of_stage for place in (path, path.parent)}
    return {
        name: "files" if isinstance(value, str) and value in places else value
        for name, value in stage.settings.items()
    }


def _code_of(make: Any) -> str:
    """Return the hash of a module of one's own; those of criadero are in the code version."""
    if make.__module__.startswith("criadero."):
        return ""
    try:
        return files.sha256_file(Path(inspect.getfile(make)))
    except (OSError, TypeError):
        return ""


def _sha256(value: list[Any]) -> str:
    try:
        text = json.dumps([_FORMAT, code_version(), *value], sort_keys=True)
    except (TypeError, ValueError) as problem:
        raise DataError(f"the settings of a stage, or the parts of a split, are no JSON: {problem}") from None
    return files.sha256_bytes(text.encode())
