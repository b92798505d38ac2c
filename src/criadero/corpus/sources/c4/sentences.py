"""Sentences as Punkt finds them with its English model; C4 keeps pages with at least three.

Entry points: `count`, and `has` for the question whether there are enough, which seldom reads a whole page.
The counts are those of NLTK, which made C4: a mark left over at the very end (`Wow!!` is `Wow!` and `!`)
counts as a sentence. Only full stops with spaces between them (`. . .`), which NLTK counts singly, are one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

# Punkt reads whole texts. A page's first lines nearly always have the three sentences asked for.
_FIRST_LINES = 4


@cache
def _punkt() -> Any:
    import punkt

    class AsNltk(punkt.PunktSentenceTokenizer):  # type: ignore[misc]
        """Without the repair that joins a mark left over to the sentence before it."""

        __slots__ = ()

        def _absorb_punctuation_only(
            self,
            text: str,  # noqa: ARG002
            spans: Iterable[tuple[int, int]],
        ) -> Iterator[tuple[int, int]]:
            return iter(spans)

    # Punkt as published knows no abbreviations that depend on a number.
    return AsNltk(replace(punkt.load_model("english"), numeric_abbrev_types=set()))


def count(text: str) -> int:
    """Return how many sentences `text` has. A line end alone ends no sentence."""
    return sum(1 for _ in _punkt().span_tokenize(text))


def has(text: str, at_least: int) -> bool:
    """Tell whether `text` has so many sentences.

    Punkt decides about a mark from the word before and the word after it, so a text has no fewer sentences
    than its first lines have by themselves, save the one that a cut may add.
    """
    lines = text.split("\n")
    taken = _FIRST_LINES
    while taken < len(lines):
        if count("\n".join(lines[:taken])) > at_least:
            return True
        taken *= 8
    return count(text) >= at_least
