"""How well an n-gram model predicts a text: perplexity, unknown words, bits per byte.

Entry points: `score` for sentences of word ids, `bits_per_byte` for documents of token ids, the number to put
beside the held-out bits per byte of a transformer with the same tokenizer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from criadero.corpus.ngram.model import NgramModel
from criadero.corpus.ngram.vocabulary import EOS, UNK
from criadero.errors import DataError

Ids = NDArray[np.integer]

_BATCH_WORDS = 1 << 14


@dataclass(frozen=True)
class NgramScore:
    """Log probability of some text.

    Attributes:
        sentences: each counts one `</s>`.
        words: without the `</s>`.
        unknown: words that are not in the vocabulary.
        log10_probability: of everything, summed.
        log10_of_unknown: the share of the unknown words in it.
    """

    sentences: int
    words: int
    unknown: int
    log10_probability: float
    log10_of_unknown: float

    @property
    def perplexity(self) -> float:
        """Per word and `</s>`, as KenLM's `query` prints it including OOVs."""
        return _perplexity(self.log10_probability, self.words + self.sentences)

    @property
    def perplexity_of_known(self) -> float:
        """The same without unknown words, as KenLM's `query` prints it excluding OOVs."""
        known = self.words + self.sentences - self.unknown
        return _perplexity(self.log10_probability - self.log10_of_unknown, known)

    def bits_per_byte(self, text_bytes: int, *, never_seen: int = 1) -> float:
        """Bits to say one byte of a text of `text_bytes` in UTF-8.

        Args:
            never_seen: how many words share the probability of `<unk>`, evenly.
        """
        bits = self.unknown * math.log2(never_seen) - self.log10_probability * math.log2(10)
        return bits / text_bytes


def score(model: NgramModel, sentences: Iterable[Ids]) -> NgramScore:
    """Score sentences of word ids, as `NgramModel.ids` returns them."""
    number = words = unknown = 0
    total = of_unknown = 0.0
    for batch in _batches(sentences):
        for ids, log10 in zip(batch, model.log10_probabilities_of(batch), strict=True):
            is_unknown = np.asarray(ids) == UNK
            number += 1
            words += len(ids)
            unknown += int(is_unknown.sum())
            total += float(log10.sum())
            of_unknown += float(log10[:-1][is_unknown].sum())
    return NgramScore(number, words, unknown, total, of_unknown)


def bits_per_byte(model: NgramModel, documents: Iterable[Ids], *, text_bytes: int, vocab_size: int) -> float:
    """Return the bits per byte of documents of token ids under a model that `train_on_tokens` made.

    Probabilities sum to 1 over the tokenizer's vocabulary, so that the number compares with that of any other
    model of the same text. The end of each document is counted.

    Args:
        documents: as the tokenizer encodes them, without control tokens.
        text_bytes: length of all documents' text in UTF-8.
        vocab_size: of the tokenizer.

    Raises:
        DataError: the model was trained on words, or there is no text.
    """
    if text_bytes <= 0:
        raise DataError("there is no text to score")
    found = score(model, (model.token_ids(document) for document in documents))
    return found.bits_per_byte(text_bytes, never_seen=never_seen(model, vocab_size))


def never_seen(model: NgramModel, vocab_size: int) -> int:
    """Return how many tokens of a tokenizer the model never saw, at least 1."""
    return max(1, vocab_size - (model.header.counts[0] - EOS - 1))


def _batches(sentences: Iterable[Ids]) -> Iterator[list[Ids]]:
    batch: list[Ids] = []
    words = 0
    for ids in sentences:
        batch.append(ids)
        words += len(ids) + 1
        if words >= _BATCH_WORDS:
            yield batch
            batch, words = [], 0
    if batch:
        yield batch


def _perplexity(log10_probability: float, words: int) -> float:
    """Return 10 ** (-mean log10 probability), infinite beyond the largest float."""
    exponent = -log10_probability / words if words else math.nan
    return math.inf if exponent > 308 else 10.0**exponent
