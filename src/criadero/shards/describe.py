"""What a sample says: the exact text of any training step, document by document.

Entry points: `describe_step` for past (or future) samples, `document_text` for one stored document.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from criadero.errors import DataError
from criadero.shards.batches import Batches
from criadero.shards.read import ShardSet, StoredDocument
from criadero.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Passage:
    """The part of one document that a sample covers.

    `text` is what its tokens make whole: put together over consecutive sequences of a source, the passages
    are the document, exactly; a character belongs to the token that completes it.
    """

    document_id: str
    num_tokens: int
    text: str


@dataclass(frozen=True)
class SampleText:
    """One training sequence: where it comes from and what it says, its last target left to the next."""

    sample: int
    source: str
    epoch: int
    sequence: int
    first_token: int
    passages: tuple[Passage, ...]


def describe_step(
    batches: Batches, tokenizer: Tokenizer, first_sample: int, count: int
) -> tuple[SampleText, ...]:
    """Return the text of samples [first_sample, first_sample + count): a step's, where count is its size.

    Raises:
        DataError: the shards were made with another tokenizer.
    """
    require_tokenizer(batches.sources[0].shards, tokenizer)
    samples = np.arange(first_sample, first_sample + count, dtype=np.int64)
    location = batches.order.locate(samples)
    texts = []
    for row, sample in enumerate(samples.tolist()):
        source, first = batches.window(location, row)
        passages = _passages(source.shards, tokenizer, first, first + batches.config.seq_len)
        epoch, sequence = int(location.epoch[row]), int(location.sequence[row])
        texts.append(SampleText(sample, source.config.name, epoch, sequence, first, passages))
    return tuple(texts)


def document_text(shards: ShardSet, tokenizer: Tokenizer, document: StoredDocument) -> str:
    """Return the exact text of a stored document.

    Raises:
        DataError: the shards were made with another tokenizer.
    """
    require_tokenizer(shards, tokenizer)
    return _decode(shards, tokenizer, document, document.start, document.stop)


def find_document(folders: Sequence[Path], document_id: str) -> tuple[ShardSet, StoredDocument]:
    """Return the split, of those in `folders`, that holds a document, and where it lies in it.

    Raises:
        DataError: none does.
    """
    some_id = ""
    for folder in folders:
        shards = ShardSet(folder)
        some_id = some_id or shards.document_at(0).id
        if (document := shards.find_document(document_id)) is not None:
            return shards, document
    raise DataError(
        f"no document in {', '.join(f'`{folder}`' for folder in folders)} is called {document_id!r}",
        hint=f"the first one is called {some_id!r}",
    )


def require_tokenizer(shards: ShardSet, tokenizer: Tokenizer) -> None:
    """Check that a tokenizer is the one the shards were made with.

    Raises:
        DataError: it is another one.
    """
    expected = shards.manifest.tokenizer.sha256
    if tokenizer.sha256 != expected:
        raise DataError(
            f"`{shards.path}` was made with the tokenizer {expected[:12]}, not with {tokenizer.sha256[:12]}",
            hint="the right one is kept in the `tokenizer` folder beside the splits",
        )


def _passages(shards: ShardSet, tokenizer: Tokenizer, start: int, stop: int) -> tuple[Passage, ...]:
    passages = []
    while start < stop:
        document = shards.document_at(start)
        end = min(stop, document.stop)
        passages.append(Passage(document.id, end - start, _decode(shards, tokenizer, document, start, end)))
        start = end
    return tuple(passages)


def _decode(shards: ShardSet, tokenizer: Tokenizer, document: StoredDocument, start: int, stop: int) -> str:
    """Decode tokens [start, stop) of a document as they read in it, not as if a text began there."""
    stream = tokenizer.stream()
    ids = shards.tokens(document.start, stop).tolist()
    for token_id in ids[: start - document.start]:
        stream.push(token_id)
    text = "".join([stream.push(token_id) for token_id in ids[start - document.start :]])
    return text + stream.finish() if stop == document.stop else text
