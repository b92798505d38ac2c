"""One shard file being written: `ShardWriter`; the layout is header.py's."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from criadero import files
from criadero.shards.header import HEADER_BYTES, Header
from criadero.shards.manifest import ShardFile, TokenizerIdentity


def token_bytes_for(vocab_size: int) -> Literal[2, 4]:
    """Return 2 (uint16) where every id fits, 4 (uint32) otherwise."""
    return 2 if vocab_size <= 1 << 16 else 4


class ShardWriter:
    """One shard file: tokens are streamed out, the document table follows at `finish`."""

    def __init__(self, path: Path, identity: TokenizerIdentity) -> None:
        self._path = path
        self._identity = identity
        self._dtype = f"<u{token_bytes_for(identity.vocab_size)}"
        self._before = _optional_token(identity.bos_id, self._dtype)
        self._after = _optional_token(identity.eos_id, self._dtype)
        self._offsets, self._lengths, self._id_ends = array("q", [0]), array("q"), array("q", [0])
        self._ids: list[bytes] = []
        self._stream = path.open("wb", buffering=1 << 20)
        self._stream.write(bytes(HEADER_BYTES))
        self.num_tokens = 0

    def add(self, document_id: str, text_bytes: int, tokens: npt.NDArray[np.uint32]) -> int:
        """Append one document between its opening and closing token; return the tokens written."""
        body = tokens.astype(self._dtype).tobytes()
        written = self._stream.write(self._before + body + self._after) // int(self._dtype[-1])
        self.num_tokens += written
        self._offsets.append(self.num_tokens)
        self._lengths.append(text_bytes)
        self._ids.append(document_id.encode())
        self._id_ends.append(self._id_ends[-1] + len(self._ids[-1]))
        return written

    def discard(self) -> None:
        """Close a file that will not be finished."""
        self._stream.close()

    def finish(self) -> ShardFile:
        """Write the document table and the header; return the file's entry for the manifest."""
        header = Header(
            token_bytes=int(self._dtype[-1]),
            tokenizer_sha256=self._identity.sha256,
            vocab_size=self._identity.vocab_size,
            num_tokens=self.num_tokens,
            num_documents=len(self._ids),
            num_bytes=sum(self._lengths),
            id_bytes=self._id_ends[-1],
            bos_id=self._identity.bos_id,
            eos_id=self._identity.eos_id,
        )
        with self._stream as stream:
            stream.write(bytes(header.offsets_at - stream.tell()))
            for table in (self._offsets, self._lengths, self._id_ends):
                stream.write(np.asarray(table, dtype="<i8").tobytes())
            stream.write(b"".join(self._ids))
            stream.seek(0)
            stream.write(header.pack())
        return ShardFile(
            name=self._path.name,
            size_bytes=header.file_bytes,
            sha256=files.sha256_file(self._path),
            num_tokens=header.num_tokens,
            num_documents=header.num_documents,
            num_bytes=header.num_bytes,
        )


def _optional_token(token_id: int | None, dtype: str) -> bytes:
    return b"" if token_id is None else np.array([token_id], dtype=dtype).tobytes()
