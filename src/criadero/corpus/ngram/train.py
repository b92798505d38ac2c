"""Training an n-gram model: read, count, smooth, write.

Entry points: `train` on sentences of words, `train_on_tokens` on documents of token ids. Everything between
the text and the model lies in temporary files beside the output, so that memory stays under
`config.memory_bytes` whatever the size of the text. The result depends on text and order, not on memory.
"""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from criadero.corpus.ngram import arpa as arpa_format
from criadero.corpus.ngram import table
from criadero.corpus.ngram.config import NgramConfig
from criadero.corpus.ngram.count import count_ngrams
from criadero.corpus.ngram.external import Column
from criadero.corpus.ngram.smooth import estimate
from criadero.corpus.ngram.trie import Trie
from criadero.corpus.ngram.vocabulary import spool, spool_tokens
from criadero.errors import DataError, RunError
from criadero.files import temporary_path


@dataclass(frozen=True)
class NgramProgress:
    """How far training has come.

    Attributes:
        stage: "read", "count", "smooth", "write" or "write ARPA".
        num_tokens: of the text so far, sentence ends included.
    """

    stage: str
    num_tokens: int


@dataclass(frozen=True)
class NgramSummary:
    """What was trained.

    Attributes:
        num_tokens: of the text, sentence ends included.
        counts: n-grams per order.
        discounts: per order, for adjusted counts 1, 2, and 3 and more.
        sha256: of the model file's content.
    """

    num_tokens: int
    counts: tuple[int, ...]
    discounts: tuple[tuple[float, ...], ...]
    sha256: str


Progress = Callable[[NgramProgress], None]


def train(
    sentences: Iterable[Sequence[str] | str],
    out: Path,
    config: NgramConfig | None = None,
    *,
    arpa: Path | None = None,
    progress: Progress | None = None,
) -> NgramSummary:
    """Train a model on sentences and write it to `out`, atomically.

    Args:
        sentences: each a string of words separated by blanks (as lmplz separates them), or a list of words.
        arpa: also write the model in ARPA format here, compressed if the name ends in `.gz`.

    Raises:
        DataError: no sentences, a word that cannot be one, or text that gives no discounts and no fallback
            allowed.
        ResourceError: more text or n-grams than a model can hold.
        RunError: `out` cannot be written.
    """
    config = config or NgramConfig()
    read = partial(spool, sentences, skip_symbols=config.skip_symbols)
    return _train(read, out, config, arpa=arpa, progress=progress)


def train_on_tokens(
    documents: Iterable[NDArray[np.integer]],
    out: Path,
    config: NgramConfig | None = None,
    *,
    tokenizer_sha256: str | None = None,
    arpa: Path | None = None,
    progress: Progress | None = None,
) -> NgramSummary:
    """Train a model on documents of token ids, each one sentence; otherwise as `train`.

    The model is that of the ids written as words. `NgramModel.token_ids` reads tokens for it.

    Args:
        tokenizer_sha256: of the tokenizer that made the ids, kept in the model.
    """
    config = config or NgramConfig()
    read = partial(spool_tokens, documents)
    return _train(
        read, out, config, arpa=arpa, progress=progress, tokens=True, tokenizer_sha256=tokenizer_sha256
    )


def _train(
    read: Callable[..., list[str]],
    out: Path,
    config: NgramConfig,
    *,
    arpa: Path | None,
    progress: Progress | None,
    tokens: bool = False,
    tokenizer_sha256: str | None = None,
) -> NgramSummary:
    def say(stage: str, num_tokens: int) -> None:
        if progress is not None:
            progress(NgramProgress(stage, num_tokens))

    limits = {"memory_bytes": config.memory_bytes}
    with work_folder(out) as folder:
        corpus = Column(folder / "corpus", np.uint32)
        words = read(corpus, on_tokens=partial(say, "read"))
        if not corpus.rows:
            raise DataError("there is no text to train an n-gram model on")
        say("count", corpus.rows)
        counts = count_ngrams(corpus, len(words), config.order, folder=folder, **limits)
        say("smooth", corpus.rows)
        estimated = estimate(counts, fallback=config.discount_fallback, folder=folder, **limits)
        trie = Trie(counts, estimated, folder, block_rows=max(1 << 12, config.memory_bytes >> 8))
        say("write", corpus.rows)
        contents = table.Contents(
            words=words,
            unigrams=trie.unigrams(),
            counts=tuple(counts.sizes()),
            records=trie.records,
            source=f"trained on {corpus.rows:,} tokens",
            words_are_tokens=tokens,
            tokenizer_sha256=tokenizer_sha256,
        )
        header = table.write(out, contents, folder=folder, **limits)
        if arpa is not None:
            say("write ARPA", corpus.rows)
            arpa_format.write(arpa, words, trie)
    discounts = tuple(tuple(float(amount) for amount in row[1:]) for row in estimated.discounts)
    return NgramSummary(corpus.rows, header.counts, discounts, header.sha256)


@contextmanager
def work_folder(out: Path) -> Iterator[Path]:
    """Make a folder for temporary files beside `out`, remove it at the end, and those of killed processes.

    Raises:
        RunError: it cannot be made, or `out` is a folder.
    """
    if out.is_dir():
        raise RunError(f"`{out}` is a folder", hint="name the file to write the model to")
    folder = temporary_path(out.with_name(f"{out.name}.work"))
    for left in out.parent.glob(f"{glob.escape(out.name)}.work.tmp-*"):
        if left == folder or not _is_running(left.name.rpartition("-")[2]):
            shutil.rmtree(left, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else problem
        raise RunError(f"`{out}` cannot be written: {reason}", hint="choose another output") from problem
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_running(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except PermissionError:
        return True
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    return True
