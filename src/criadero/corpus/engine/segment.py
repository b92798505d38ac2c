"""A recipe cut at its exchanges: what one task does with one split before documents must wait for others.

Entry point: `cut`. A segment begins with the reader or with the decisions of the exchange before it, runs
functions over single documents, and ends with the records of the next exchange or with the corpus.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from criadero.corpus.engine.stage import Each, Exchange, Read, Recipe, Stage
from criadero.errors import DataError


@dataclass(frozen=True)
class Segment:
    """Consecutive stages that one task runs over a split.

    Attributes:
        source: name of the source.
        number: 0 for the segment that reads the raw input.
        stages: names of all stages of the recipe.
        first: place in the recipe of `begin`.
        begin: the reader, or the exchange whose decisions are applied.
        eaches: the functions over single documents.
        end: the exchange that records are emitted for, None in the last segment.
    """

    source: str
    number: int
    stages: tuple[str, ...]
    first: int
    begin: Read | Exchange
    eaches: tuple[Each, ...]
    end: Exchange | None

    @property
    def last(self) -> int:
        """The place in the recipe of what a document meets last here."""
        return self.first + len(self.eaches) + (self.end is not None)

    @property
    def parts(self) -> tuple[Stage, ...]:
        """All stages that have code in this segment."""
        return (self.begin, *self.eaches, *([] if self.end is None else [self.end]))

    @property
    def label(self) -> str:
        """What progress calls it."""
        return " + ".join(stage.name for stage in self.parts)


def cut(source: str, recipe: Recipe) -> list[Segment]:
    """Return the segments of a recipe, in order.

    Raises:
        DataError: it does not begin with its one reader, or names are missing, taken twice or no file names.
    """
    _check(source, recipe)
    names = tuple(stage.name for stage in recipe)
    borders = [i for i, stage in enumerate(recipe) if not isinstance(stage, Each)]
    segments = []
    for number, (first, after) in enumerate(zip(borders, [*borders[1:], len(recipe)], strict=True)):
        begin, end = recipe[first], recipe[after] if after < len(recipe) else None
        assert not isinstance(begin, Each)
        assert end is None or isinstance(end, Exchange)
        eaches = tuple(stage for stage in recipe[first:after] if isinstance(stage, Each))
        segments.append(Segment(source, number, names, first, begin, eaches, end))
    return segments


def _check(source: str, recipe: Recipe) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", source):
        raise DataError(f"{source!r} names no source: expected letters, digits, `.`, `_`, `-`")
    if not recipe or [isinstance(stage, Read) for stage in recipe] != [True] + [False] * (len(recipe) - 1):
        raise DataError(f"the recipe of {source!r} must begin with its one reader")
    names = [stage.name for stage in recipe]
    if len(set(names)) < len(names):
        raise DataError(f"the recipe of {source!r} has two stages of one name: {', '.join(names)}")
    assert isinstance(recipe[0], Read)
    if nowhere := [split.name for split in recipe[0].splits if not split.path]:
        raise DataError(f"the split `{nowhere[0]}` of {source!r} has no path")
    for name, count in Counter(split.name for split in recipe[0].splits).items():
        if count > 1:
            raise DataError(f"{source!r} has {count} splits called `{name}`")
