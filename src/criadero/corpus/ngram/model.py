"""A trained n-gram model: opened without being read, shared between processes, asked by document.

Entry point: `NgramModel.open`. A document's n-grams of all orders are numbered in numpy (hashing.py) and
looked up together, so that a question costs a few dozen array operations however many words it has.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from criadero.corpus.ngram import hashing
from criadero.corpus.ngram.table import DTYPES, HEADER_BYTES, Header, read_header
from criadero.corpus.ngram.vocabulary import BOS, EOS, UNK
from criadero.errors import DataError

F64 = NDArray[np.float64]

_BLOCK_WORDS = 1 << 13
"""Words looked up at once: enough for numpy, little enough for the processor's cache."""


class NgramModel:
    """Log probabilities of words after the words before them.

    Attributes:
        path: the model file.
        header: what the file says about itself.
    """

    def __init__(self, path: Path, header: Header, data: mmap.mmap) -> None:
        self.path = path
        self.header = header
        offsets, _ = header.offsets()
        arrays: dict[str, NDArray[Any]] = {
            name: np.frombuffer(data, DTYPES[name], count=length, offset=offsets[name])
            for name, length in header.lengths().items()
        }
        unigrams = arrays["unigrams"].reshape(-1, 2)
        self._unigram_probability = unigrams[:, 0]
        self._unigram_backoff = unigrams[:, 1]
        self._table = arrays["table"].reshape(-1, 2)
        self._word_offsets = arrays["word_offsets"]
        self._word_bytes = arrays["words"]
        self._data = data

    @classmethod
    def open(cls, path: Path, *, verify: bool = False) -> NgramModel:
        """Map a model file into memory; only pages that are asked for are read.

        Args:
            verify: read the whole file and compare its sha256.

        Raises:
            DataError: missing, no model file, of another version, cut or (with `verify`) damaged.
        """
        header = read_header(path)
        with path.open("rb") as stream:
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        if verify and hashlib.sha256(memoryview(data)[HEADER_BYTES:]).hexdigest() != header.sha256:
            raise DataError(
                f"n-gram model `{path}` is damaged: its content is not what its header says",
                hint="restore the file or train again",
            )
        return cls(path, header, data)

    @property
    def order(self) -> int:
        """Words of the longest n-gram."""
        return self.header.order

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The vocabulary by id: `<unk>`, `<s>`, `</s>`, then in order of first appearance.

        Raises:
            DataError: the file is damaged.
        """
        data, offsets = self._word_bytes.tobytes(), self._word_offsets.tolist()
        try:
            words = tuple(data[start:stop].decode() for start, stop in pairwise(offsets))
        except UnicodeDecodeError as problem:
            raise DataError(f"the words of n-gram model `{self.path}` are damaged: {problem}") from None
        return words

    @cached_property
    def _id_of(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    @cached_property
    def _id_of_token(self) -> NDArray[np.int32]:
        if not self.header.words_are_tokens:
            raise DataError(f"n-gram model `{self.path}` was trained on words, not on token ids")
        tokens = np.array(self.words[EOS + 1 :], np.int64)
        ids = np.full(int(tokens.max(initial=-1)) + 1, UNK, np.int32)
        ids[tokens] = np.arange(EOS + 1, EOS + 1 + len(tokens))
        return ids

    def ids(self, words: Sequence[str]) -> NDArray[np.int32]:
        """Return the id of each word, that of `<unk>` for unknown ones.

        The words `<s>` and `</s>` are unknown like any other: sentences have their ends by themselves.
        """
        number_of = self._id_of.get
        ids = np.fromiter((number_of(word, UNK) for word in words), np.int32, len(words))
        ids[ids <= EOS] = UNK
        return ids

    def token_ids(self, tokens: NDArray[np.integer]) -> NDArray[np.int32]:
        """Return the id of each token of the tokenizer the model was trained with.

        Raises:
            DataError: the model was trained on words.
        """
        tokens = np.asarray(tokens, np.int64)
        known = (tokens >= 0) & (tokens < len(self._id_of_token))
        ids = np.full(len(tokens), UNK, np.int32)
        ids[known] = self._id_of_token[tokens[known]]
        return ids

    def log10_probability(self, ids: NDArray[np.integer]) -> float:
        """Return the log10 probability of a sentence: `<s>`, the words, and `</s>` at its end."""
        return float(self.log10_probabilities(ids).sum())

    def log10_probabilities(self, ids: NDArray[np.integer]) -> F64:
        """Return the log10 probability of each word and of the final `</s>`, float64 [len(ids) + 1].

        Raises:
            DataError: an id that is not in the vocabulary.
        """
        return self.log10_probabilities_of([ids])[0]

    def log10_probabilities_of(self, sentences: Sequence[NDArray[np.integer]]) -> list[F64]:
        """Return what `log10_probabilities` does for each sentence; faster for many short ones.

        Raises:
            DataError: an id that is not in the vocabulary.
        """
        lengths = np.array([len(ids) + 2 for ids in sentences], np.int64)
        ends = np.cumsum(lengths)
        # No n-gram goes on after `</s>`, so that sentences in a row do not know of each other.
        row = np.full(int(lengths.sum()), BOS, np.int64)
        for ids, end in zip(sentences, ends.tolist(), strict=True):
            row[end - len(ids) - 1 : end - 1] = ids
        row[ends - 1] = EOS
        if len(row) and not (row.min() >= 0 and row.max() < self.header.counts[0]):
            raise DataError(f"ids must be in 0 .. {self.header.counts[0] - 1:,}, as `ids` returns them")
        values = np.concatenate([np.zeros(1), *self._blocks(row)])
        return [
            values[end - length + 1 : end]
            for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)
        ]

    def _blocks(self, row: NDArray[np.int64]) -> list[F64]:
        """Return the log10 probabilities of all words of a row but the first, in blocks."""
        found = []
        for start in range(1, len(row), _BLOCK_WORDS):
            before = max(0, start - max(1, self.order - 1))
            found.append(self._conditional(row[before : start + _BLOCK_WORDS])[start - before - 1 :])
        return found

    def _conditional(self, row: NDArray[np.int64]) -> F64:
        """Return the log10 probability of each word but the first, given the words before it."""
        probability, backoff, known = self._look_up(self._numbers(row))
        value = self._unigram_probability[row[1:]].astype(np.float64)
        context = self._unigram_backoff[row[:-1]]
        for k in range(self.order - 1):
            value = np.where(known[k, 1:], probability[k, 1:], value + context)
            context = backoff[k, :-1]
        return value

    def _numbers(self, row: NDArray[np.int64]) -> hashing.U64:
        """Return [order - 1, words]: the number of the n-gram of k + 2 words that ends at each word, or 0."""
        numbers = np.zeros((self.order - 1, len(row)), np.uint64)
        shorter = hashing.first(row, self.header.seed)
        for k in range(self.order - 1):
            shorter = hashing.extend(shorter[1:], row[: max(0, len(row) - k - 1)])
            numbers[k, k + 1 :] = shorter
        return numbers

    def _look_up(
        self, numbers: hashing.U64
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
        """Return log10 probability, backoff (0 where unknown) and whether the n-gram is known, by number."""
        wanted = numbers.ravel()
        place = hashing.homes(wanted, self.header.capacity)
        entry = self._table.take(place, axis=0, mode="clip")
        searching = np.flatnonzero(entry[:, 0] < wanted)
        for _ in range(self.header.longest + 1):
            if not len(searching):
                break
            place[searching] += 1
            further = self._table.take(place[searching], axis=0, mode="clip")
            entry[searching] = further
            searching = searching[further[:, 0] < wanted[searching]]
        known = entry[:, 0] == wanted
        entry[~known, 1] = 0
        values = entry[:, 1].copy().view("<f4").reshape(*numbers.shape, 2)
        return values[..., 0], values[..., 1], known.reshape(numbers.shape)
