"""How much a page reads like the text a 5-gram model was trained on; pages that read least like it go.

Entry points: `stage(config, folder)` and `Scorer`. CCNet's rule: the page becomes one normalised line, is cut
into SentencePiece pieces, and its perplexity per piece (with the end of the line as one more) decides on
head, middle or tail. The folder of a model holds `sentencepiece.model`, the 5-gram and `cutoffs.json`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
import sentencepiece
from pydantic import Field

from criadero.config import Config
from criadero.corpus.document import Document, Drop
from criadero.corpus.engine.stage import DocumentFunction, Each
from criadero.corpus.ngram.model import NgramModel
from criadero.corpus.quality import cutoffs as cutoffs_module
from criadero.corpus.quality.cutoffs import Bucket, Cutoffs
from criadero.corpus.text_normal import scorable
from criadero.errors import DataError

PIECES_FILE = "sentencepiece.model"
NGRAM_FILE = "ngram.bin"
MAX_LOG10 = 300.0  # above this a perplexity is no float any more


class PerplexityConfig(Config):
    """Which pages stay.

    Attributes:
        keep: buckets. The paper does not say which it kept; CC-100 and RedPajama kept these.
        cutoffs: `own` reads those beside the model; `ccnet` takes those of CCNet's own models.
    """

    keep: tuple[Bucket, ...] = Field(default=("head", "middle"), min_length=1)
    cutoffs: Literal["own", "ccnet"] = "own"


def stage(config: PerplexityConfig, folder: Path, *, language: str = "en") -> Each:
    """Return the step that drops pages of other buckets (score: perplexity).

    Raises:
        DataError: the folder lacks the model or its cutoffs.
    """
    parted = cutoffs_module.load(folder) if config.cutoffs == "own" else cutoffs_module.of_ccnet(language)
    settings = {
        "folder": str(folder),
        "head": parted.head,
        "middle": parted.middle,
        "keep": list(config.keep),
    }
    return Each("perplexity", make, settings, files=model_files(folder), score="perplexity")


def make(*, folder: str, head: float, middle: float, keep: list[str]) -> DocumentFunction:
    """Return the step's function with its models loaded."""
    scorer = Scorer(Path(folder))
    parted = Cutoffs(head, middle, 0, "")

    def function(document: Document) -> Document | Drop:
        perplexity = scorer.perplexity(document.text)
        bucket = parted.bucket(perplexity)
        if bucket not in keep:
            return Drop(f"perplexity_{bucket}", score=perplexity)
        return document.with_metadata(bucket=bucket, perplexity=repr(perplexity))

    return function


def model_files(folder: Path) -> tuple[Path, ...]:
    """Return the files of a model without its cutoffs.

    Raises:
        DataError: one is missing.
    """
    wanted = (folder / PIECES_FILE, folder / NGRAM_FILE)
    for path in wanted:
        if not path.is_file():
            raise DataError(f"`{path}` does not exist: the folder is no language model for perplexities")
    return wanted


class Scorer:
    """A loaded model: text to perplexity.

    Raises:
        DataError: the folder holds no model, or pieces and n-grams are not of one model.
    """

    def __init__(self, folder: Path) -> None:
        pieces_path, ngram_path = model_files(folder)
        self._pieces = load_pieces(pieces_path)
        self._ngram = NgramModel.open(ngram_path)
        names = [self._pieces.id_to_piece(i) for i in range(self._pieces.vocab_size())]
        self._ngram_ids = np.asarray(self._ngram.ids(names))

    def perplexity(self, text: str) -> float:
        """Return 10^(-log10 probability / (pieces + 1)) of the normalised text, at most 1e300."""
        pieces = self._pieces.encode(scorable(text))
        log10 = self._ngram.log10_probability(self._ngram_ids[pieces])
        return float(10.0 ** min(-log10 / (len(pieces) + 1), MAX_LOG10))

    def perplexities(self, texts: Iterable[str]) -> Iterable[float]:
        """Yield the perplexity of each text, as `calibrate` wants them."""
        return map(self.perplexity, texts)


def load_pieces(path: Path) -> sentencepiece.SentencePieceProcessor:
    """Load a SentencePiece model.

    Raises:
        DataError: the file is not one.
    """
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as problem:
        raise DataError(f"`{path}` is no SentencePiece model: {problem}") from None
