"""Reading token shards: `ShardSet` maps the files of one split into memory and gives random access.

Opening checks every header against its file's size and the manifest; `verify` hashes the content. Positions
are token positions counted over all shards in order; a document lies in one shard whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from criadero import files
from criadero.errors import DataError
from criadero.shards.header import HEADER_BYTES, Header, read_header
from criadero.shards.manifest import Manifest, ShardFile, read_manifest

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class StoredDocument:
    """Where one document lies: tokens [start, stop) of the whole set, BOS and EOS included.

    `index` counts documents over all shards; `num_bytes` is the length of its text in UTF-8.
    """

    id: str
    index: int
    start: int
    stop: int
    num_bytes: int


class _Shard:
    """One mapped file."""

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        data = np.memmap(path, dtype=np.uint8, mode="r")
        self.tokens = data[HEADER_BYTES:][: header.num_tokens * header.token_bytes].view(header.token_dtype)
        self.offsets = data[header.offsets_at : header.lengths_at].view("<i8")
        self.lengths = data[header.lengths_at : header.id_offsets_at].view("<i8")
        self.id_offsets = data[header.id_offsets_at : header.ids_at].view("<i8")
        self.ids = data[header.ids_at :]
        self.num_documents = header.num_documents
        if int(self.offsets[-1]) != header.num_tokens or int(self.id_offsets[-1]) != header.id_bytes:
            raise DataError(
                f"token shard `{path}`: its document table does not end where its tokens do",
                hint="the file is damaged: restore it or build the shards again",
            )

    def document_id(self, index: int) -> str:
        start, stop = int(self.id_offsets[index]), int(self.id_offsets[index + 1])
        return self.ids[start:stop].tobytes().decode()


class ShardSet:
    """The shards of one split.

    Attributes:
        manifest: what the builder wrote.
        num_tokens, num_documents, num_bytes: over all shards; bytes of UTF-8 text.

    Raises:
        DataError: on opening: a file is missing, cut, of another version, or not the manifest's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest: Manifest = read_manifest(path)
        self._shards = [_open_shard(path, file, self.manifest) for file in self.manifest.files]
        self.num_tokens = self.manifest.num_tokens
        self.num_documents = self.manifest.num_documents
        self.num_bytes = self.manifest.num_bytes
        self._token_starts = _starts([file.num_tokens for file in self.manifest.files])
        self._document_starts = _starts([file.num_documents for file in self.manifest.files])

    @property
    def fingerprint(self) -> str:
        """A hash over the content of all shards, as the manifest has it, hexadecimal."""
        return self.manifest.fingerprint

    def verify(
        self, rank: int = 0, world_size: int = 1, *, stop_requested: Callable[[], bool] = lambda: False
    ) -> None:
        """Hash this rank's share of the files, until a stop is asked for.

        Raises:
            DataError: naming the first file whose content is not what was built.
        """
        for file in self.manifest.files[rank::world_size]:
            if stop_requested():
                return
            path = files.safe_join(self.path, file.name)
            found = files.sha256_file(path)
            if found != file.sha256:
                raise DataError(
                    f"token shard `{path}` has changed since it was built: sha256 {found}, "
                    f"expected {file.sha256}",
                    hint="restore the file or build the shards again",
                )

    def tokens(self, start: int, stop: int) -> npt.NDArray[np.unsignedinteger]:
        """Return tokens [start, stop), a view where they lie in one shard.

        Raises:
            IndexError: outside 0 .. num_tokens.
        """
        if not 0 <= start <= stop <= self.num_tokens:
            raise IndexError(f"tokens {start}..{stop} of {self.num_tokens}")
        parts: list[npt.NDArray[np.unsignedinteger]] = []
        while start < stop:
            shard, offset = self._shard_at(start)
            parts.append(self._shards[shard].tokens[offset : offset + stop - start])
            start += len(parts[-1])
        if not parts:
            return self._shards[0].tokens[:0]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def where(self, position: int) -> str:
        """Say in which file and document a token lies, for error messages."""
        shard, offset = self._shard_at(position)
        document = self.document_at(position)
        return f"token {offset:,} of `{self._shards[shard].path}` (document {document.id!r})"

    def document(self, index: int) -> StoredDocument:
        """Return the document with this number.

        Raises:
            IndexError: outside 0 .. num_documents - 1.
        """
        if not 0 <= index < self.num_documents:
            raise IndexError(f"document {index} of {self.num_documents}")
        number = int(np.searchsorted(self._document_starts, index, side="right")) - 1
        shard, local = self._shards[number], index - int(self._document_starts[number])
        first = int(self._token_starts[number])
        return StoredDocument(
            id=shard.document_id(local),
            index=index,
            start=first + int(shard.offsets[local]),
            stop=first + int(shard.offsets[local + 1]),
            num_bytes=int(shard.lengths[local]),
        )

    def document_at(self, position: int) -> StoredDocument:
        """Return the document that the token at `position` belongs to."""
        number, offset = self._shard_at(position)
        local = int(np.searchsorted(self._shards[number].offsets, offset, side="right")) - 1
        return self.document(int(self._document_starts[number]) + local)

    def document_starts(self, start: int, stop: int) -> Int64s:
        """Return the positions in [start, stop) at which a document starts, ascending."""
        found: list[Int64s] = []
        number = self._shard_at(start)[0] if start < min(stop, self.num_tokens) else len(self._shards)
        while number < len(self._shards) and self._token_starts[number] < stop:
            first = int(self._token_starts[number])
            offsets = self._shards[number].offsets[:-1]
            low, high = np.searchsorted(offsets, [start - first, stop - first])
            found.append(offsets[low:high].astype(np.int64) + first)
            number += 1
        return np.concatenate(found) if found else np.empty(0, dtype=np.int64)

    def find_document(self, document_id: str) -> StoredDocument | None:
        """Return the document with this id, None if there is none, by looking at all of them."""
        for number, shard in enumerate(self._shards):
            for local in range(shard.num_documents):
                if shard.document_id(local) == document_id:
                    return self.document(int(self._document_starts[number]) + local)
        return None

    def document_tokens(self) -> Int64s:
        """Return the number of tokens of every document, BOS and EOS included."""
        return np.concatenate([np.diff(shard.offsets) for shard in self._shards]).astype(np.int64)

    def _shard_at(self, position: int) -> tuple[int, int]:
        if not 0 <= position < self.num_tokens:
            raise IndexError(f"token {position} of {self.num_tokens}")
        number = int(np.searchsorted(self._token_starts, position, side="right")) - 1
        return number, position - int(self._token_starts[number])


def _starts(counts: list[int]) -> Int64s:
    return np.cumsum([0, *counts], dtype=np.int64)


def _open_shard(folder: Path, file: ShardFile, manifest: Manifest) -> _Shard:
    path = files.safe_join(folder, file.name)
    header = read_header(path)
    identity = manifest.tokenizer
    found = (
        header.file_bytes, header.num_tokens, header.num_documents, header.num_bytes, header.token_bytes,
        header.tokenizer_sha256, header.vocab_size, header.bos_id, header.eos_id,
    )  # fmt: skip
    expected = (
        file.size_bytes, file.num_tokens, file.num_documents, file.num_bytes, manifest.token_bytes,
        identity.sha256, identity.vocab_size, identity.bos_id, identity.eos_id,
    )  # fmt: skip
    if found != expected:
        raise DataError(
            f"the header of token shard `{path}` does not fit the manifest: {found}, expected {expected}",
            hint="restore the folder as it was built, or build the shards again",
        )
    return _Shard(path, header)
