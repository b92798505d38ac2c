"""From documents to token shards: `build`, and `build_from_files` for text files.

Documents are encoded in batches, dealt to the train or held-out split by a hash of (seed, id), and appended
to shard files; memory holds one batch of text, one shard's document table and 16 bytes per document id.
The output folder appears, complete with manifests and the tokenizer, when everything went well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

import criadero
from criadero import files
from criadero.config import to_values
from criadero.corpus.document import Document
from criadero.corpus.sources import text
from criadero.errors import DataError
from criadero.notices import say_once
from criadero.shards.config import ShardConfig
from criadero.shards.document_ids import SeenIds, digest_of, drawn
from criadero.shards.manifest import (
    MANIFEST_NAME,
    TOKENIZER_FOLDER,
    BuildManifest,
    InputFile,
    Manifest,
    ShardFile,
    Split,
    TokenizerIdentity,
)
from criadero.shards.shard_writer import ShardWriter, token_bytes_for
from criadero.tokenizer.tokenizer import Tokenizer

_BATCH_CHARACTERS = 1 << 22
_BATCH_DOCUMENTS = 4096


@dataclass(frozen=True)
class BuildProgress:
    """How far a build has come; `num_bytes` of text in UTF-8."""

    num_documents: int
    num_tokens: int
    num_bytes: int


def build(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    out: Path,
    *,
    config: ShardConfig,
    inputs: Sequence[Mapping[str, str | int]] = (),
    expected_bytes: int | None = None,
    skipped: Mapping[str, int] | None = None,
    progress: Callable[[BuildProgress], None] | None = None,
) -> BuildManifest:
    """Write `out/<train|heldout>/shard-*.bin` with manifests, and `out/tokenizer`.

    Args:
        documents: with ids that are unique; empty texts are left out and counted.
        out: must not exist; it appears only when the build ends well.
        inputs: name, size_bytes and sha256 of the files the documents come from, for the manifest.
        expected_bytes: about how much text will come, to check the disk before the start.
        skipped: read at the end: records the reader skipped, by input file.
        progress: called after each batch.

    Raises:
        DataError: no document for training, an id twice, or an id outside the tokenizer's vocabulary.
        ResourceError: not enough disk.
        RunError: `out` exists.
    """
    identity = _identity(tokenizer, config)
    if expected_bytes is not None:
        needed_bytes = expected_bytes * token_bytes_for(tokenizer.vocab_size) // 2
        files.require_free_bytes(out, needed_bytes, purpose="building token shards")
    with files.atomic_folder(out) as folder, closing(_Writer(folder, identity, config)) as writer:
        for batch in _batches(documents):
            writer.add(batch, tokenizer.encode_batch([document.text for document in batch]))
            if progress is not None:
                progress(writer.progress())
        manifest = writer.finish(inputs, skipped or {})
        (folder / TOKENIZER_FOLDER).mkdir()
        tokenizer.save(folder / TOKENIZER_FOLDER)
    return manifest


def build_from_files(
    inputs: Sequence[Path],
    tokenizer: Tokenizer,
    out: Path,
    *,
    config: ShardConfig,
    on_bad: text.OnBad = "raise",
    progress: Callable[[BuildProgress], None] | None = None,
) -> BuildManifest:
    """Build shards from text files and folders (see corpus/sources/text.py), whose hashes are kept.

    Raises:
        DataError: as `build`, and a record that cannot be read unless `on_bad` is "skip".
        ResourceError, RunError: as `build`.
    """
    skipped: Counter[str] = Counter()
    documents = (
        document
        for path in inputs
        for document in text.read(path, source=config.source, on_bad=on_bad, skipped=skipped)
    )
    return build(
        documents,
        tokenizer,
        out,
        config=config,
        inputs=[file for path in inputs for file in text.describe(path)],
        expected_bytes=sum(map(text.estimated_text_bytes, inputs)),
        skipped=skipped,
        progress=progress,
    )


def _identity(tokenizer: Tokenizer, config: ShardConfig) -> TokenizerIdentity:
    for name, wanted, token in (("bos", config.bos, tokenizer.bos_id), ("eos", config.eos, tokenizer.eos_id)):
        if wanted and token is None:
            say_once(f"the tokenizer has no {name} token: documents are stored without one")
    return TokenizerIdentity(
        kind=tokenizer.kind,
        sha256=tokenizer.sha256,
        vocab_size=tokenizer.vocab_size,
        bos_id=tokenizer.bos_id if config.bos else None,
        eos_id=tokenizer.eos_id if config.eos else None,
    )


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Group documents so that a batch holds a bounded amount of text (or one document)."""
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if characters >= _BATCH_CHARACTERS or len(batch) >= _BATCH_DOCUMENTS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


class _Writer:
    """Deals encoded documents to the splits."""

    def __init__(self, folder: Path, identity: TokenizerIdentity, config: ShardConfig) -> None:
        self._folder, self._identity, self._config = folder, identity, config
        self._splits: dict[Split, _SplitWriter] = {}
        self._seen = SeenIds()
        self._empty = 0

    def add(self, documents: Sequence[Document], encoded: Sequence[Sequence[int]]) -> None:
        for document, ids in zip(documents, encoded, strict=True):
            digest = digest_of(document.id, self._config.seed)
            self._seen.add(document.id, digest)
            if not document.text:
                self._empty += 1
                continue
            split: Split = "heldout" if drawn(digest, self._config.heldout_fraction) else "train"
            if split not in self._splits:
                self._splits[split] = _SplitWriter(self._folder / split, split, self._identity, self._config)
            tokens = _as_tokens(ids, document.id, self._identity.vocab_size)
            self._splits[split].add(document.id, document.text_bytes(), tokens)

    def progress(self) -> BuildProgress:
        totals = [split.totals for split in self._splits.values()]
        documents, tokens, text_bytes = np.sum(totals, axis=0).tolist() if totals else (0, 0, 0)
        return BuildProgress(documents, tokens, text_bytes)

    def finish(self, inputs: Sequence[Mapping[str, str | int]], skipped: Mapping[str, int]) -> BuildManifest:
        self._seen.flush()
        if "train" not in self._splits:
            raise DataError(
                f"no document with text for training ({self._empty:,} were empty, "
                f"{self.progress().num_documents:,} were held out)",
                hint="check the inputs, or lower the held-out fraction",
            )
        if self._config.heldout_fraction and "heldout" not in self._splits:
            say_once(
                "no document was drawn for the held-out split: there are too few documents for a share of "
                f"{self._config.heldout_fraction:g} (--heldout-fraction)"
            )
        manifest = BuildManifest(
            config=self._config,
            splits={name: split.finish() for name, split in sorted(self._splits.items(), reverse=True)},
            inputs=tuple(InputFile.model_validate(file) for file in inputs),
            empty_documents=self._empty,
            skipped=dict(skipped),
            criadero_version=criadero.__version__,
        )
        files.write_json(self._folder / MANIFEST_NAME, to_values(manifest))
        return manifest

    def close(self) -> None:
        """Let go of files that an error left open."""
        for split in self._splits.values():
            split.close()


class _SplitWriter:
    """Cuts one split into shard files."""

    def __init__(self, folder: Path, split: Split, identity: TokenizerIdentity, config: ShardConfig) -> None:
        folder.mkdir()
        self._folder, self._split, self._identity, self._config = folder, split, identity, config
        self._files: list[ShardFile] = []
        self._shard: ShardWriter | None = None
        self.totals = np.zeros(3, dtype=np.int64)

    def add(self, document_id: str, text_bytes: int, tokens: npt.NDArray[np.uint32]) -> None:
        if self._shard is None:
            self._shard = ShardWriter(self._folder / f"shard-{len(self._files):05d}.bin", self._identity)
        written = self._shard.add(document_id, text_bytes, tokens)
        self.totals += (1, written, text_bytes)
        if self._shard.num_tokens >= self._config.shard_tokens:
            self._close_shard()

    def _close_shard(self) -> None:
        if self._shard is not None:
            self._files.append(self._shard.finish())
            self._shard = None

    def close(self) -> None:
        if self._shard is not None:
            self._shard.discard()

    def finish(self) -> Manifest:
        self._close_shard()
        documents, tokens, text_bytes = self.totals.tolist()
        manifest = Manifest(
            split=self._split,
            source=self._config.source,
            tokenizer=self._identity,
            token_bytes=token_bytes_for(self._identity.vocab_size),
            num_tokens=tokens,
            num_documents=documents,
            num_bytes=text_bytes,
            files=tuple(self._files),
        )
        files.write_json(self._folder / MANIFEST_NAME, to_values(manifest))
        return manifest


def _as_tokens(ids: Sequence[int], document_id: str, vocab_size: int) -> npt.NDArray[np.uint32]:
    tokens = np.array(ids, dtype=np.int64)
    if tokens.size and not (tokens.min() >= 0 and tokens.max() < vocab_size):
        wrong = tokens[(tokens < 0) | (tokens >= vocab_size)][0]
        raise DataError(
            f"document {document_id!r} was encoded with token id {wrong}, "
            f"outside the tokenizer's vocabulary of {vocab_size:,}"
        )
    return tokens.astype(np.uint32)
