"""A model of good text for perplexities: SentencePiece pieces, then 5-grams over them, as CCNet trains them.

Entry point: `train(texts, folder)`. Text is normalised as it will be when pages are scored, one document one
sentence. CCNet trains on the openings of Wikipedia articles; here it is the whole text of the source given.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import sentencepiece
from pydantic import Field

from criadero import files
from criadero.config import Config
from criadero.corpus.ngram.config import NgramConfig
from criadero.corpus.ngram.train import train as train_ngram
from criadero.corpus.quality.perplexity import NGRAM_FILE, PIECES_FILE, load_pieces
from criadero.corpus.text_normal import scorable
from criadero.errors import DataError
from criadero.notices import say_once
from criadero.tokenizer.sample import sample_lines

# SentencePiece skips longer lines without a word.
_MAX_LINE_BYTES = 4192
# The result depends on the number of threads, so it is not the machine's.
_THREADS = 4


class LanguageModelConfig(Config):
    """Size of the model; the defaults are CCNet's.

    Attributes:
        pieces: of SentencePiece at most; little text gives fewer, which is said.
        character_coverage: share of the text's characters that are pieces of their own.
        order: words of the longest n-gram.
        sample_bytes: of text that SentencePiece learns from.
        seed: of that sample.
    """

    pieces: int = Field(default=65_536, ge=64, le=1 << 20)
    character_coverage: float = Field(default=0.9995, gt=0, le=1)
    order: int = Field(default=5, ge=1, le=10)
    sample_bytes: int = Field(default=256 << 20, ge=1 << 10)
    seed: int = Field(default=0, ge=0, lt=1 << 32)


def train(
    texts: Callable[[], Iterable[str]], folder: Path, *, config: LanguageModelConfig | None = None
) -> None:
    """Write pieces and n-grams into `folder`, which must exist; cutoffs are still to be computed.

    Args:
        texts: gives the documents, in the same order at every call (it is called twice).

    Raises:
        DataError: there is no text, or too little of it for a model.
    """
    config = config or LanguageModelConfig()
    # differs from paper: its CCNet learns from the openings of articles.
    _train_pieces(texts(), folder / PIECES_FILE, config)
    pieces = load_pieces(folder / PIECES_FILE)
    sentences = (pieces.encode(line, out_type=str) for line in _normalised(texts()))
    train_ngram(sentences, folder / NGRAM_FILE, config=NgramConfig(order=config.order, skip_symbols=True))


def _normalised(texts: Iterable[str]) -> Iterator[str]:
    return (line for line in map(scorable, texts) if line)


def _train_pieces(texts: Iterable[str], path: Path, config: LanguageModelConfig) -> None:
    sample = sample_lines(
        {"text": _normalised(texts)},
        config.sample_bytes,
        weights=None,
        max_line_bytes=_MAX_LINE_BYTES,
        seed=config.seed,
    )
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sample.lines),
            model_writer=model,
            model_type="unigram",
            vocab_size=config.pieces,
            hard_vocab_limit=False,
            character_coverage=config.character_coverage,
            max_sentence_length=_MAX_LINE_BYTES,
            num_threads=_THREADS,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as problem:
        raise DataError(f"SentencePiece cannot learn pieces from this text: {problem}") from None
    with files.atomic_write(path) as stream:
        stream.write(model.getvalue())
    found = load_pieces(path).vocab_size()
    if found < config.pieces:
        say_once(
            f"the perplexity model has {found:,} pieces instead of {config.pieces:,}: there is little text"
        )
