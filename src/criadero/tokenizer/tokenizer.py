"""The tokenizer interface, and `load`, which finds the right implementation for a folder or file.

A `Tokenizer` turns text into ids and back, whole or as a stream. Control tokens (begin, end, chat roles)
never come out of text, whatever it spells: they are added by `bos=`/`eos=` here and by chat.py.
Implementations: sentencepiece_tokenizer.py (LLaMA's kind) and byte_bpe.py (SmolLM2, Llama 3).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from criadero.errors import TokenizerError
from criadero.tokenizer.stream import StreamDecoder, TokenBytes

MAX_FILE_BYTES = 256 * 1024 * 1024
MAX_VOCAB_SIZE = 2_000_000

Kind = Literal["sentencepiece", "byte-bpe"]


class Tokenizer(ABC):
    """Text to token ids and back.

    Attributes:
        kind: "sentencepiece" or "byte-bpe".
        vocab_size: number of ids; every id is in 0 .. vocab_size - 1.
        bos_id, eos_id: ids that open and close a document, None where the vocabulary has none.
        adds_bos: whether models of this vocabulary expect every text to open with `bos_id`.
        special_tokens: name to id of every control token.
        sha256: hash of the defining file, hexadecimal.
        token_bytes: the UTF-8 bytes behind each id.
    """

    kind: Kind
    vocab_size: int
    bos_id: int | None
    eos_id: int | None
    adds_bos: bool
    special_tokens: Mapping[str, int]
    sha256: str
    token_bytes: TokenBytes

    @abstractmethod
    def piece(self, token_id: int) -> str:
        """Return the vocabulary's own spelling of an id."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the files that transformers (and, for SentencePiece, llama.cpp) read into `folder`."""

    @abstractmethod
    def _encode_text(self, text: str) -> list[int]:
        """Encode text that is valid Unicode, without control tokens."""

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        """Return the ids of `text`; lone surrogates are encoded as U+FFFD.

        Raises:
            TokenizerError: `bos` or `eos` asked for where the vocabulary has none.
        """
        ids = self._encode_text(_valid_unicode(text))
        if bos:
            ids.insert(0, self._required(self.bos_id, "bos"))
        if eos:
            ids.append(self._required(self.eos_id, "eos"))
        return ids

    def encode_batch(self, texts: Iterable[str], *, bos: bool = False, eos: bool = False) -> list[list[int]]:
        """Return the ids of each text."""
        return [self.encode(text, bos=bos, eos=eos) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`; control tokens have none, broken UTF-8 becomes U+FFFD.

        Raises:
            TokenizerError: an id outside the vocabulary.
        """
        return self.token_bytes.join(ids).decode("utf-8", errors="replace")

    def stream(self) -> StreamDecoder:
        """Return a decoder for ids that arrive one by one."""
        return StreamDecoder(self.token_bytes)

    def _required(self, token_id: int | None, name: str) -> int:
        if token_id is None:
            raise TokenizerError(f"this vocabulary has no {name} token")
        return token_id


def load(path: Path) -> Tokenizer:
    """Open a tokenizer folder, or its `tokenizer.model` / `tokenizer.json` file itself.

    In a folder with both, a SentencePiece `tokenizer.model` defines the tokenizer.

    Raises:
        TokenizerError: nothing there, malformed, too large, or of a kind this project does not read.
    """
    if path.is_dir():
        path = _defining_file(path)
    if path.suffix == ".json":
        from criadero.tokenizer.byte_bpe import ByteBPETokenizer

        return ByteBPETokenizer.from_file(path)
    from criadero.tokenizer.sentencepiece_tokenizer import SentencePieceTokenizer

    return SentencePieceTokenizer.from_file(path)


def read_bounded(path: Path) -> bytes:
    """Read a tokenizer file of at most `MAX_FILE_BYTES`.

    Raises:
        TokenizerError: missing, unreadable, empty or too large.
    """
    try:
        with path.open("rb") as stream:
            # Asking for more than is there would allocate it.
            data = stream.read(min(path.stat().st_size, MAX_FILE_BYTES) + 1)
    except OSError as problem:
        raise TokenizerError(f"tokenizer file `{path}` cannot be read: {problem.strerror}") from None
    if not data or len(data) > MAX_FILE_BYTES:
        found = "is empty" if not data else f"is larger than {MAX_FILE_BYTES:,} bytes"
        raise TokenizerError(f"tokenizer file `{path}` {found}")
    return data


def _defining_file(folder: Path) -> Path:
    model, table = folder / "tokenizer.model", folder / "tokenizer.json"
    if model.is_file() and not (table.is_file() and is_tiktoken(model)):
        return model
    if table.is_file():
        return table
    raise TokenizerError(
        f"`{folder}` holds neither `tokenizer.model` nor `tokenizer.json`",
        hint="train one with `criadero tokenizer train`, or name the folder of a model",
    )


def is_tiktoken(path: Path) -> bool:
    """Tell Llama 3's `tokenizer.model` (lines of base64 and rank) from a SentencePiece model."""
    with path.open("rb") as stream:
        first = stream.readline(4096).split()
    return len(first) == 2 and first[1].isdigit()


def _valid_unicode(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot hold, by U+FFFD; other text is returned as it is."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
