"""Text files as sentences for an n-gram model.

Without a tokenizer a sentence is a line, as for lmplz: of a `.txt` file however long, or of each document of
`.jsonl` and `.parquet` files. With a tokenizer a sentence is a document (`criadero.corpus.sources.text`).
Entry points: `read_lines` and `read_tokens`; `TextSize` counts what went through.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from criadero.corpus.ngram.model import NgramModel
from criadero.corpus.ngram.score import never_seen, score
from criadero.corpus.ngram.vocabulary import split_words
from criadero.corpus.sources import text
from criadero.corpus.sources.records import UNREADABLE, open_bytes
from criadero.errors import DataError
from criadero.tokenizer.tokenizer import Tokenizer

MAX_LINE_BYTES = 1 << 26


@dataclass
class TextSize:
    """UTF-8 bytes of the text read so far; a line's end is one byte."""

    num_bytes: int = 0


def read_lines(paths: Iterable[Path], size: TextSize) -> Iterator[str]:
    """Yield the lines of text files and folders, without their ends.

    Raises:
        DataError: nothing to read, a file that cannot be read, text that is not UTF-8, or a line of more than
            `MAX_LINE_BYTES`.
    """
    for path in paths:
        for file in text.text_files(path):
            lines = _txt_lines(file.path) if ".txt" in file.path.suffixes else _document_lines(file.path)
            for line in lines:
                size.num_bytes += len(line.encode()) + 1
                yield line


def read_tokens(paths: Iterable[Path], tokenizer: Tokenizer, size: TextSize) -> Iterator[NDArray[np.int32]]:
    """Yield the token ids of each document of text files and folders, without control tokens.

    Raises:
        DataError: as `criadero.corpus.sources.text.read`.
    """
    for path in paths:
        for document in text.read(path):
            size.num_bytes += document.text_bytes()
            yield np.array(tokenizer.encode(document.text), np.int32)


def score_texts(
    model: NgramModel, paths: Iterable[Path], *, tokenizer: Tokenizer | None = None
) -> dict[str, float]:
    """Return what `NgramScore` says of text files and folders, with perplexities and bits per byte.

    Raises:
        DataError: the text cannot be read, or the model was not trained with `tokenizer`.
    """
    size = TextSize()
    if model.header.words_are_tokens != (tokenizer is not None):
        needed = "token ids: name its tokenizer" if tokenizer is None else "words, not on token ids"
        raise DataError(f"n-gram model `{model.path}` was trained on {needed}")
    if tokenizer is None:
        unseen = 1
        sentences = (model.ids(split_words(line)) for line in read_lines(paths, size))
    else:
        if model.header.tokenizer_sha256 not in (None, tokenizer.sha256):
            raise DataError(f"n-gram model `{model.path}` was trained with another tokenizer")
        unseen = never_seen(model, tokenizer.vocab_size)
        sentences = (model.token_ids(tokens) for tokens in read_tokens(paths, tokenizer, size))
    found = score(model, sentences)
    if not size.num_bytes:
        raise DataError("there is no text to score")
    return {
        **asdict(found),
        "perplexity": found.perplexity,
        "perplexity_of_known": found.perplexity_of_known,
        "bits_per_byte": found.bits_per_byte(size.num_bytes, never_seen=unseen),
    }


def _document_lines(path: Path) -> Iterator[str]:
    for document in text.read(path):
        yield from document.text.split("\n")


def _txt_lines(path: Path) -> Iterator[str]:
    number = 0
    try:
        with open_bytes(path) as stream:
            while line := stream.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise DataError(f"`{path}`, line {number:,}: more than {MAX_LINE_BYTES:,} bytes")
                yield line.removesuffix(b"\n").decode()
    except UnicodeDecodeError as problem:
        raise DataError(f"`{path}`, line {number:,}: not UTF-8 at byte {problem.start}") from None
    except UNREADABLE as problem:
        raise DataError(f"`{path}` cannot be read after line {number:,}: {problem}") from None
