"""The language of a page by langdetect's profiles: the same numbers, several times as fast.

Entry points: `make_language` for the stage of the recipe, `probabilities` for the numbers. langdetect draws
n-grams of a text at random, with a seed, and multiplies the frequencies they have in each language until one
stands out, seven times over. Here the profiles are rows of an array, n-grams are taken from the text without
an object for each character, and the draws, the roundings and the order of the sums are langdetect's own.
Languages are summed in order of name; langdetect takes the order in which a folder lists its files, so its
last digits differ from one machine to another.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

from criadero.corpus.document import Document, Drop
from criadero.corpus.engine.stage import DocumentFunction

SEED = 0
LANGUAGE = "en"
MIN_PROBABILITY = 0.99
# langdetect's own constants, which it holds in `Detector`.
_TRIALS = 7
_MAX_CHARACTERS = 10_000
_ALPHA = 0.5
_ALPHA_WIDTH = 0.05
_BASE_FREQUENCY = 10_000
_CONVERGED = 0.99999
_MAX_DRAWS = 1000
_SPACES = re.compile(" {2,}")
_LATIN = re.compile("[A-z]")


def make_language() -> DocumentFunction:
    """Return the function that keeps English pages; adds `language_probability`.

    Drops `no_language` (nothing to detect, or no language more likely than the others), `unsure_language`
    and `other_language`, the last two with the probability as score.
    """

    def keep(document: Document) -> Document | Drop:
        ranked = sorted(probabilities(document.text).items(), key=lambda pair: -pair[1])
        # langdetect does not name languages of a tenth or less.
        if not ranked or ranked[0][1] <= 0.1:
            return Drop("no_language")
        name, probability = ranked[0]
        if probability < MIN_PROBABILITY:
            return Drop("unsure_language", score=probability, detail=name)
        if name != LANGUAGE:
            return Drop("other_language", score=probability, detail=name)
        return document.with_metadata(language_probability=f"{probability:.6f}")

    return keep


def probabilities(text: str) -> dict[str, float]:
    """Return the probability of each language langdetect knows; nothing for a text without their n-grams."""
    profiles = _profiles()
    drawn_from = _ngrams(_without_foreign_latin(_shortened(text)))
    if not drawn_from:
        return {}
    random = Random(SEED)
    total = np.zeros(len(profiles.languages))
    for _ in range(_TRIALS):
        total += _trial(drawn_from, profiles, random) / _TRIALS
    return dict(zip(profiles.languages, total.tolist(), strict=True))


@dataclass(frozen=True)
class _Profiles:
    """How often each n-gram stands in each language.

    Attributes:
        languages: in order of name.
        rows: of each n-gram in `frequencies`.
        frequencies: [n-gram, language], relative to n-grams of that length.
        normalized: langdetect's spelling of each character met so far.
    """

    languages: tuple[str, ...]
    rows: dict[str, int]
    frequencies: npt.NDArray[np.float64]
    normalized: _Normalized


class _Normalized(dict[int, str]):
    """A table for `str.translate` that asks langdetect once for each character."""

    def __missing__(self, code: int) -> str:
        self[code] = _detector().NGram.normalize(chr(code))
        return self[code]


@cache
def _detector() -> Any:
    import langdetect.detector

    return langdetect.detector


@cache
def _profiles() -> _Profiles:
    folder = Path(_detector().__file__).parent / "profiles"
    found = sorted(
        (json.loads(file.read_text("utf-8")) for file in folder.iterdir()), key=lambda p: p["name"]
    )
    rows: dict[str, int] = {}
    for profile in found:
        for ngram in profile["freq"]:
            rows.setdefault(ngram, len(rows))
    frequencies = np.zeros((len(rows), len(found)))
    for column, profile in enumerate(found):
        for ngram, number in profile["freq"].items():
            if 1 <= len(ngram) <= 3:
                frequencies[rows[ngram], column] = number / profile["n_words"][len(ngram) - 1]
    return _Profiles(tuple(p["name"] for p in found), rows, frequencies, _Normalized())


def _shortened(text: str) -> str:
    """Take addresses out, join letters with their Vietnamese marks, cut, and make one space of several."""
    detector = _detector()
    if "http" in text:
        text = detector.Detector.URL_RE.sub(" ", text)
    if "@" in text:
        text = detector.Detector.MAIL_RE.sub(" ", text)
    if not text.isascii():
        text = detector.NGram.normalize_vi(text)
    return _SPACES.sub(" ", text[:_MAX_CHARACTERS])


def _without_foreign_latin(text: str) -> str:
    """Take Latin letters out of a text that is mostly in another script."""
    if text.isascii():
        return text
    block = _detector().unicode_block
    other = sum(1 for c in text if c >= "\u0300" and block(c) != "Latin Extended Additional")
    return _LATIN.sub("", text) if len(_LATIN.findall(text)) * 2 < other else text


def _ngrams(text: str) -> list[int]:
    """Return the rows of the n-grams of a text, in langdetect's order. None reaches beyond a word."""
    *words, last = _SPACES.sub(" ", text.translate(_profiles().normalized)).lstrip(" ").split(" ")
    found: list[int] = []
    for word in words:
        found.extend(_ngrams_of_word(f" {word} "))
    if last:
        found.extend(_ngrams_of_word(f" {last}"))
    return found


@lru_cache(maxsize=1 << 16)
def _ngrams_of_word(word: str) -> tuple[int, ...]:
    """Return for each character but the first the n-grams it ends; none where it is a further capital."""
    found = []
    for at in range(1, len(word)):
        character, before = word[at], word[at - 1]
        if character.isupper() and before.isupper():
            continue
        if character != " ":
            found.append(character)
        found.append(before + character)
        if before != " ":
            found.append(word[at - 2 : at + 1])
    rows = _profiles().rows
    return tuple(rows[ngram] for ngram in found if ngram in rows)


def _trial(drawn_from: list[int], profiles: _Profiles, random: Random) -> npt.NDArray[np.float64]:
    """Multiply frequencies of n-grams drawn at random until one language stands out."""
    count = len(profiles.languages)
    likely = np.full(count, 1.0 / count)
    weight = (_ALPHA + random.gauss(0.0, 1.0) * _ALPHA_WIDTH) / _BASE_FREQUENCY
    for drawn in range(_MAX_DRAWS + 1):
        likely *= profiles.frequencies[random.choice(drawn_from)] + weight
        if drawn % 5 == 0:
            # Added one by one as langdetect does: numpy's own sum rounds differently.
            likely /= sum(likely.tolist())
            if likely.max() > _CONVERGED:
                break
    return likely
