"""Perplexities that part pages into head, middle and tail.

Entry points: `calibrate` for one's own language model, `of_ccnet` for the models that CCNet published. A
cutoff is a percentile of a model's perplexities over crawled pages, so it holds for that one model only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from criadero import files
from criadero.errors import DataError
from criadero.notices import say_once

Bucket: TypeAlias = Literal["head", "middle", "tail"]

HEAD_PERCENTILE, MIDDLE_PERCENTILE = 30, 60
FILE = "cutoffs.json"
_FORMAT = 1
# 30th and 60th percentile of the models published with CCNet, by language; as the project states them.
_CCNET: dict[str, tuple[float, float]] = {
    "en": (340, 520),
    "de": (370, 590),
    "fr": (180, 330),
    "es": (180, 290),
    "it": (220, 360),
    "ru": (210, 310),
    "pl": (160, 260),
    "pt": (170, 270),
    "nl": (430, 650),
    "uk": (140, 220),
    "cs": (820, 1140),
    "da": (380, 600),
    "hr": (720, 910),
    "bg": (450, 680),
    "ca": (210, 330),
    "hu": (80, 140),
    "ro": (180, 270),
}


@dataclass(frozen=True)
class Cutoffs:
    """Perplexities below `head` are head, below `middle` middle, all others tail.

    Attributes:
        documents: how many pages they were computed from, 0 if by somebody else.
        pages: which pages those were.
    """

    head: float
    middle: float
    documents: int
    pages: str

    def bucket(self, perplexity: float) -> Bucket:
        if perplexity < self.head:
            return "head"
        return "middle" if perplexity < self.middle else "tail"

    def save(self, folder: Path) -> None:
        """Write the cutoffs beside the model they hold for."""
        files.write_json(folder / FILE, {"format": _FORMAT, **asdict(self)})


def calibrate(perplexities: Iterable[float], *, pages: str) -> Cutoffs:
    """Return the cutoffs that part a sample of pages as CCNet does: 30 % head, 30 % middle, 40 % tail.

    Raises:
        DataError: there are no pages, or a perplexity is not a finite number.
    """
    values = np.fromiter(perplexities, dtype=np.float64)
    if len(values) == 0:
        raise DataError("cutoffs cannot be computed: there is no page", hint=f"pages came from {pages}")
    if not np.isfinite(values).all():
        raise DataError(f"cutoffs cannot be computed: a perplexity is not finite (pages from {pages})")
    head, middle = np.percentile(values, [HEAD_PERCENTILE, MIDDLE_PERCENTILE])
    return Cutoffs(float(head), float(middle), len(values), pages)


def load(folder: Path) -> Cutoffs:
    """Read the cutoffs beside a model.

    Raises:
        DataError: there are none, or they are no cutoffs.
    """
    path = folder / FILE
    if not path.exists():
        raise DataError(
            f"`{path}` does not exist: a language model parts pages only with cutoffs of its own",
            hint="compute them on a sample of crawled pages with `calibrate`",
        )
    values = files.read_json(path)
    try:
        if values.pop("format") != _FORMAT:
            raise ValueError("another format")
        cutoffs = Cutoffs(**values)
        if not 0 < cutoffs.head <= cutoffs.middle < float("inf"):
            raise ValueError("not in order")
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        raise DataError(f"`{path}` holds no cutoffs: {problem}") from None
    return cutoffs


def of_ccnet(language: str) -> Cutoffs:
    """Return the cutoffs for the language model that CCNet published for `language`, and say for which.

    Raises:
        DataError: CCNet has none for it.
    """
    if language not in _CCNET:
        raise DataError(
            f"CCNet has no cutoffs for `{language}`, only for {', '.join(sorted(_CCNET))}",
            hint="compute cutoffs for your own model with `calibrate`",
        )
    say_once(
        f"the cutoffs of CCNet for `{language}` hold only for the language model published with it; "
        "with any other model the buckets mean nothing"
    )
    return Cutoffs(*_CCNET[language], documents=0, pages="CCNet")
