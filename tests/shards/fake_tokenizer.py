"""A tokenizer small enough to reason about: one token per UTF-8 byte."""

from __future__ import annotations

from pathlib import Path

from criadero import files
from criadero.tokenizer.stream import TokenBytes
from criadero.tokenizer.tokenizer import Tokenizer


class ByteTokenizer(Tokenizer):
    """unk 0, bos 1, eos 2, then id = byte + 3; a larger vocabulary only widens the stored type."""

    kind = "byte-bpe"

    def __init__(self, vocab_size: int = 259, *, bos_id: int | None = 1, eos_id: int | None = 2) -> None:
        self.vocab_size, self.bos_id, self.eos_id = vocab_size, bos_id, eos_id
        self.special_tokens = {"<unk>": 0, "<s>": 1, "</s>": 2}
        self.sha256 = files.sha256_bytes(f"byte tokenizer of {vocab_size}".encode())
        table = [b"", b"", b"", *(bytes([byte]) for byte in range(256))]
        table += [b"?"] * (vocab_size - len(table))
        self.token_bytes = TokenBytes(table, table)

    def piece(self, token_id: int) -> str:
        return repr(self.token_bytes.anywhere[token_id])

    def save(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text("{}")

    def _encode_text(self, text: str) -> list[int]:
        return [byte + 3 for byte in text.encode()]
