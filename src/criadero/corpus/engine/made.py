"""The functions of stages, made once in each process: models are loaded by the first task that needs them."""

from __future__ import annotations

import json
from typing import Any

from criadero.corpus.engine.segment import Segment
from criadero.corpus.engine.stage import Stage

_made: dict[str, Any] = {}


def made(segment: Segment, stage: Stage) -> Any:
    """Return what `make` of the stage returns; what other segments made is let go."""
    wanted = {_name(part) for part in segment.parts}
    for name in set(_made) - wanted:
        del _made[name]
    name = _name(stage)
    if name not in _made:
        _made[name] = stage.make(**stage.settings)
    return _made[name]


def forget() -> None:
    """Let go of everything that was made."""
    _made.clear()


def _name(stage: Stage) -> str:
    files = [] if not hasattr(stage, "files") else [(str(f), f.stat().st_mtime_ns) for f in stage.files]
    make = stage.make
    return json.dumps([make.__module__, make.__qualname__, dict(stage.settings), files], sort_keys=True)
