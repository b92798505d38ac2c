"""Words to ids in order of first appearance, and the corpus as one long column of ids.

Entry point: `spool`. As in lmplz, `<unk>`, `<s>` and `</s>` are 0, 1 and 2; other words count from 3. The
column holds each sentence's words followed by `</s>`.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from criadero.corpus.ngram.external import Column
from criadero.errors import DataError, ResourceError

UNK, BOS, EOS = 0, 1, 2
SPECIAL_WORDS = ("<unk>", "<s>", "</s>")
BLANKS = "\0\t\n\r "
"""What separates words, the same five as in KenLM; other white space of Unicode is part of a word."""

MAX_TOKENS = (1 << 32) - 1
_FLUSH_TOKENS = 1 << 20
_END = 0xFFFFFFFF
_TO_BLANK = str.maketrans(dict.fromkeys(BLANKS, " "))


class Spool:
    """Numbers words as they come and writes their ids to a column."""

    def __init__(self, column: Column, *, skip_symbols: bool, on_tokens: Callable[[int], None]) -> None:
        self._column = column
        self._skip_symbols = skip_symbols
        self._on_tokens = on_tokens
        self._ids: defaultdict[str, int] = defaultdict()
        self._ids.default_factory = self._ids.__len__
        for word in SPECIAL_WORDS:
            self._ids[word]
        self._pending = array("I")

    @property
    def words(self) -> list[str]:
        """The vocabulary by id."""
        return list(self._ids)

    def add(self, words: Iterable[str]) -> None:
        """Add a sentence."""
        self._pending.extend(map(self._ids.__getitem__, words))
        self._pending.append(_END)
        if len(self._pending) >= _FLUSH_TOKENS:
            self.flush()

    def flush(self) -> None:
        """Write what is pending.

        Raises:
            DataError: a sentence holds `<s>`, `</s>` or `<unk>` as a word and they are not to be skipped.
            ResourceError: more than `MAX_TOKENS` tokens.
        """
        ids = np.frombuffer(self._pending, np.uint32).copy()
        self._pending = array("I")
        special = ids <= EOS
        if special.any():
            if not self._skip_symbols:
                word = SPECIAL_WORDS[int(ids[special][0])]
                raise DataError(
                    f"the text holds the word {word!r}, which the model uses itself",
                    hint="remove such words, or set skip_symbols to treat them as blanks",
                )
            ids = ids[~special]
        ids[ids == _END] = EOS
        _write_ids(self._column, ids)
        self._on_tokens(self._column.rows)


def _write_ids(column: Column, ids: NDArray[np.uint32]) -> None:
    """Append ids to the corpus, within `MAX_TOKENS`."""
    column.append(ids)
    if column.rows > MAX_TOKENS:
        raise ResourceError(
            f"more than {MAX_TOKENS:,} tokens of text are too many for one n-gram model",
            hint="train on a sample of the text",
        )


def spool(
    sentences: Iterable[Sequence[str] | str],
    column: Column,
    *,
    skip_symbols: bool = False,
    on_tokens: Callable[[int], None] = lambda _: None,
) -> list[str]:
    """Write the ids of all sentences to `column` and return the vocabulary by id.

    Args:
        sentences: each a string of words separated by `BLANKS`, or a sequence of words.

    Raises:
        DataError: see `Spool.flush`, and a word that is empty, holds a blank or a lone surrogate.
    """
    spool = Spool(column, skip_symbols=skip_symbols, on_tokens=on_tokens)
    for sentence in sentences:
        spool.add(split_words(sentence) if isinstance(sentence, str) else sentence)
    spool.flush()
    words = spool.words
    for word in words:
        check_word(word)
    return words


def spool_tokens(
    documents: Iterable[NDArray[np.integer]],
    column: Column,
    *,
    on_tokens: Callable[[int], None] = lambda _: None,
) -> list[str]:
    """Write documents of token ids, each one sentence, to `column`; the words are the ids in decimals."""
    ids_of: NDArray[np.uint32] = np.zeros(1 << 16, np.uint32)
    words = list(SPECIAL_WORDS)
    pending: list[NDArray[np.uint32]] = []
    num_pending = 0
    for document in documents:
        tokens = np.asarray(document)
        if tokens.size and (tokens.min() < 0 or tokens.max() >= 1 << 31):
            raise DataError(f"{tokens.min():,} to {tokens.max():,} are no token ids")
        if tokens.size and tokens.max() >= len(ids_of):
            ids_of = np.concatenate([ids_of, np.zeros(int(tokens.max()) + 1, np.uint32)])
        # Numbered by first appearance, as words are.
        for token in dict.fromkeys(tokens[ids_of[tokens] == 0].tolist()):
            ids_of[token] = len(words)
            words.append(str(token))
        pending.append(np.append(ids_of[tokens], np.uint32(EOS)))
        num_pending += len(pending[-1])
        if num_pending >= _FLUSH_TOKENS:
            _write_ids(column, np.concatenate(pending))
            on_tokens(column.rows)
            pending, num_pending = [], 0
    if pending:
        _write_ids(column, np.concatenate(pending))
    on_tokens(column.rows)
    return words


def split_words(text: str) -> list[str]:
    """Return the words of a sentence, separated by any of `BLANKS`."""
    return [word for word in text.translate(_TO_BLANK).split(" ") if word]


def check_word(word: str) -> None:
    """Check that a word can stand in a model file.

    Raises:
        DataError: it is empty, holds one of `BLANKS`, or is not text.
    """
    if not word or any(blank in word for blank in BLANKS):
        raise DataError(f"{word!r} is no word: words are not empty and hold no blanks")
    try:
        word.encode()
    except UnicodeEncodeError:
        raise DataError(f"the word {word!r} holds a lone surrogate, which is not text") from None
