"""The layout of one shard file, version 1: little-endian, every section aligned to 8 bytes.

    128 bytes        header: magic, version, bytes per token, tokenizer sha256, counts, BOS and EOS ids
    num_tokens       uint16 or uint32 token ids of all documents, one after the other
    num_documents+1  int64 token offset at which each document starts; the last is num_tokens
    num_documents    int64 length of each document's text in UTF-8, bytes
    num_documents+1  int64 byte offset of each document id below; the last is id_bytes
    id_bytes         the document ids, UTF-8, one after the other

Entry points: `Header.pack` for the writer, `read_header` for the reader, which believes no count before it
has been compared with the file's size.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from criadero.errors import DataError

MAGIC = b"CRIASHRD"
VERSION = 1
# The fields of `Header` in their order, after magic and version.
_STRUCT = struct.Struct("<8sII32sQQQQQqq24x")
HEADER_BYTES = _STRUCT.size


@dataclass(frozen=True)
class Header:
    """What a shard file says about itself.

    Attributes:
        token_bytes: 2 (uint16) or 4 (uint32).
        tokenizer_sha256: hash of the tokenizer that made the ids, hexadecimal.
        num_bytes: length of all texts in UTF-8, bytes.
        bos_id, eos_id: the token put before and after each document, None if none was.
    """

    token_bytes: int
    tokenizer_sha256: str
    vocab_size: int
    num_tokens: int
    num_documents: int
    num_bytes: int
    id_bytes: int
    bos_id: int | None
    eos_id: int | None

    def pack(self) -> bytes:
        """Return the header's `HEADER_BYTES` bytes."""
        return _STRUCT.pack(
            MAGIC, VERSION, self.token_bytes, bytes.fromhex(self.tokenizer_sha256), self.vocab_size,
            self.num_tokens, self.num_documents, self.num_bytes, self.id_bytes,
            -1 if self.bos_id is None else self.bos_id, -1 if self.eos_id is None else self.eos_id,
        )  # fmt: skip

    @property
    def token_dtype(self) -> str:
        """numpy's name of the token type."""
        return f"<u{self.token_bytes}"

    @property
    def offsets_at(self) -> int:
        """Where the documents' token offsets start in the file, bytes."""
        return HEADER_BYTES + -(-self.num_tokens * self.token_bytes // 8) * 8

    @property
    def lengths_at(self) -> int:
        """Where the documents' text lengths start."""
        return self.offsets_at + 8 * (self.num_documents + 1)

    @property
    def id_offsets_at(self) -> int:
        """Where the offsets of the document ids start."""
        return self.lengths_at + 8 * self.num_documents

    @property
    def ids_at(self) -> int:
        """Where the document ids start."""
        return self.id_offsets_at + 8 * (self.num_documents + 1)

    @property
    def file_bytes(self) -> int:
        """The size the whole file must have."""
        return self.ids_at + self.id_bytes


def read_header(path: Path) -> Header:
    """Read and check a shard's header against the size of its file.

    Raises:
        DataError: missing, not a shard, of another format version, or of another size than the header says.
    """
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as stream:
            data = stream.read(HEADER_BYTES)
    except OSError as problem:
        raise DataError(
            f"token shard `{path}` cannot be read: {problem.strerror}",
            hint="restore the file or build the shards again",
        ) from None
    if len(data) < HEADER_BYTES or data[:8] != MAGIC:
        raise DataError(f"`{path}` is no token shard: it does not start with {MAGIC.decode()}")
    header = _unpack(data, path)
    if header.file_bytes != size_bytes:
        raise DataError(
            f"token shard `{path}` has {size_bytes:,} bytes, its header asks for {header.file_bytes:,}",
            hint="the file is cut or damaged: restore it or build the shards again",
        )
    return header


def _unpack(data: bytes, path: Path) -> Header:
    _, version, token_bytes, sha256, *numbers = _STRUCT.unpack(data)
    if version != VERSION:
        raise unknown_version(path, version, VERSION)
    if token_bytes not in (2, 4):
        raise DataError(f"token shard `{path}` has {token_bytes} bytes per token, expected 2 or 4")
    vocab_size, num_tokens, num_documents, num_bytes, id_bytes, bos_id, eos_id = numbers
    return Header(
        token_bytes=token_bytes,
        tokenizer_sha256=sha256.hex(),
        vocab_size=vocab_size,
        num_tokens=num_tokens,
        num_documents=num_documents,
        num_bytes=num_bytes,
        id_bytes=id_bytes,
        bos_id=None if bos_id < 0 else bos_id,
        eos_id=None if eos_id < 0 else eos_id,
    )


def unknown_version(path: Path, found: object, expected: int) -> DataError:
    """Return the error for a file written in another format version."""
    return DataError(
        f"`{path}` has format version {found}, this program reads version {expected}",
        hint="read it with the version of criadero that wrote it, or build the shards again",
    )
