"""Byte-level BPE tokenizers (GPT-2's kind, as in SmolLM2 and Llama 3), read from a `tokenizer.json`.

Entry point: `ByteBPETokenizer.from_file`. The `tokenizers` library encodes, told to treat control tokens
spelled in a text as plain text; as a second lock, ids of control tokens in its output are an error.
byte_bpe_table.py writes such a file for a vocabulary that came in a GGUF file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from criadero import files
from criadero.errors import TokenizerError
from criadero.tokenizer.byte_bpe_table import byte_alphabet
from criadero.tokenizer.native import native_faults
from criadero.tokenizer.special import is_control_name
from criadero.tokenizer.stream import TokenBytes
from criadero.tokenizer.tokenizer import MAX_VOCAB_SIZE, Tokenizer, read_bounded

_EOS_NAMES = ("<|eot_id|>", "<|im_end|>", "<|end_of_text|>", "<|endoftext|>", "</s>")
_BOS_NAMES = ("<|begin_of_text|>", "<|endoftext|>", "<s>")


class ByteBPETokenizer(Tokenizer):
    """A tokenizer defined by a byte-level `tokenizer.json`.

    Args:
        table: content of the `tokenizer.json`.
        bos, eos: names of the tokens that open and close a document; guessed from the names if None.
        where: what to call the file in errors.

    Raises:
        TokenizerError: malformed, not byte-level BPE, or without the tokens named.
    """

    kind = "byte-bpe"

    def __init__(
        self,
        table: bytes,
        *,
        bos: str | None = None,
        eos: str | None = None,
        where: str = "the tokenizer table",
    ) -> None:
        values = _checked(table, where)
        self._source = table
        self._where = where
        self.sha256 = files.sha256_bytes(table)
        self._pieces = _pieces(values, where)
        self.vocab_size = len(self._pieces)
        self.special_tokens = _mark_controls(values, {bos, eos})
        self.bos_id = self._id_of(bos, _BOS_NAMES)
        self.eos_id = self._id_of(eos, _EOS_NAMES)
        self.token_bytes = _token_bytes(self._pieces, values, set(self.special_tokens.values()))
        self._controls = frozenset(self.special_tokens.values())
        self._library = _library_tokenizer(values, self._pieces, where)
        self.adds_bos = self._opens_with_bos()

    @classmethod
    def from_file(cls, path: Path) -> ByteBPETokenizer:
        """Read a `tokenizer.json`, with the bos and eos names of a `tokenizer_config.json` beside it."""
        bos, eos = _named_in_config(path.parent / "tokenizer_config.json")
        return cls(read_bounded(path), bos=bos, eos=eos, where=f"`{path}`")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the table's bytes, so that worker processes rebuild their own encoders."""
        names = [None if i is None else self._pieces[i] for i in (self.bos_id, self.eos_id)]
        return _rebuild, (self._source, *names, self._where)

    def piece(self, token_id: int) -> str:
        """Return the piece of an id in the table's byte alphabet.

        Raises:
            TokenizerError: the id is outside the vocabulary.
        """
        if not 0 <= token_id < self.vocab_size:
            raise TokenizerError(f"token id {token_id} is outside the vocabulary of {self.vocab_size}")
        return self._pieces[token_id]

    def table_bytes(self) -> bytes:
        """Return the content of the `tokenizer.json`, as it was read."""
        return self._source

    def save(self, folder: Path) -> None:
        """Write tokenizer.json, as it was read, and tokenizer_config.json into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        with files.atomic_write(folder / "tokenizer.json") as stream:
            stream.write(self._source)
        ids = {"bos_token": self.bos_id, "eos_token": self.eos_id}
        config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
        config |= {key: self._pieces[index] for key, index in ids.items() if index is not None}
        config |= {"add_bos_token": self.adds_bos, "add_eos_token": False}
        config |= {"clean_up_tokenization_spaces": False, "model_max_length": 1_000_000_000}
        files.write_json(folder / "tokenizer_config.json", config)

    def _encode_text(self, text: str) -> list[int]:
        with native_faults(f"{self._where} cannot encode a text"):
            ids: list[int] = self._library.encode(text, add_special_tokens=False).ids
        if not self._controls.isdisjoint(ids):
            raise TokenizerError(f"{self._where} turns plain text into control tokens")
        return ids

    def _opens_with_bos(self) -> bool:
        """Tell whether the table's own post-processing puts bos before every text."""
        with native_faults(f"{self._where} cannot encode a text"):
            opening = self._library.encode("").ids[:1]
        return self.bos_id is not None and bool(opening == [self.bos_id])

    def _id_of(self, name: str | None, usual: Sequence[str]) -> int | None:
        if name is not None and name not in self.special_tokens:
            raise TokenizerError(f"{self._where} has no token {name!r}, which its configuration names")
        candidates = (name,) if name is not None else usual
        return next((self.special_tokens[c] for c in candidates if c in self.special_tokens), None)


def _rebuild(table: bytes, bos: str | None, eos: str | None, where: str) -> ByteBPETokenizer:
    return ByteBPETokenizer(table, bos=bos, eos=eos, where=where)


def _checked(table: bytes, where: str) -> dict[str, Any]:
    """Parse a `tokenizer.json` and check what this module reads of it."""
    try:
        values = json.loads(table)
    except (ValueError, RecursionError):
        raise TokenizerError(f"{where} is not JSON") from None
    model = values.get("model") if isinstance(values, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict):
        raise TokenizerError(f"{where} is not a tokenizer table with a vocabulary")
    if model.get("type", "BPE") != "BPE" or "ByteLevel" not in _types_in(values.get("decoder")):
        raise TokenizerError(
            f"{where} is not byte-level BPE",
            hint="for a SentencePiece vocabulary bring its `tokenizer.model`",
        )
    added = values.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(entry, dict) for entry in added):
        raise TokenizerError(f"{where} has malformed added tokens")
    return dict(values)


def _types_in(decoder: Any) -> set[str]:
    if not isinstance(decoder, dict):
        return set()
    parts = decoder.get("decoders") if decoder.get("type") == "Sequence" else [decoder]
    return {str(part.get("type")) for part in parts or [] if isinstance(part, dict)}


def _pieces(values: dict[str, Any], where: str) -> list[str]:
    """Return the piece of every id; ids must be 0 .. n-1 without doubles."""
    by_id: dict[int, str] = {}
    added = [(entry.get("content"), entry.get("id")) for entry in values.get("added_tokens") or []]
    for piece, index in [*values["model"]["vocab"].items(), *added]:
        if type(index) is not int or not 0 <= index < MAX_VOCAB_SIZE or not isinstance(piece, str):
            raise TokenizerError(f"{where} holds the entry {piece!r}: {index!r}, which cannot be")
        if by_id.setdefault(index, piece) != piece:
            raise TokenizerError(f"{where} gives the id {index} to {by_id[index]!r} and {piece!r}")
    if not by_id or len(by_id) != max(by_id) + 1:
        raise TokenizerError(
            f"{where} has {len(by_id):,} ids up to {max(by_id, default=0):,}: some are missing"
        )
    return [by_id[index] for index in range(len(by_id))]


def _mark_controls(values: dict[str, Any], named: set[str | None]) -> dict[str, int]:
    """Return the control tokens, and mark them `special` so that the library never finds them in text."""
    found: dict[str, int] = {}
    for entry in values.get("added_tokens") or []:
        name = entry["content"]
        if entry.get("special") or name in named or is_control_name(name):
            entry["special"] = True
            found[name] = entry["id"]
    return found


def _token_bytes(pieces: Sequence[str], values: dict[str, Any], controls: set[int]) -> TokenBytes:
    alphabet = byte_alphabet()
    plain = {entry["id"] for entry in values.get("added_tokens") or []}
    table: list[bytes] = []
    for index, piece in enumerate(pieces):
        if index in controls:
            table.append(b"")
        elif index in plain or any(character not in alphabet for character in piece):
            table.append(piece.encode("utf-8", "replace"))
        else:
            table.append(bytes(alphabet[character] for character in piece))
    return TokenBytes(table, table)


def _library_tokenizer(values: dict[str, Any], pieces: Sequence[str], where: str) -> Any:
    import tokenizers

    with native_faults(f"{where} is refused by the tokenizers library"):
        library = tokenizers.Tokenizer.from_str(json.dumps(values | {"truncation": None, "padding": None}))
    if library.get_vocab() != {piece: index for index, piece in enumerate(pieces)}:
        raise TokenizerError(f"{where} states other ids than the tokenizers library gives it")
    library.encode_special_tokens = True
    return library


def _named_in_config(path: Path) -> tuple[str | None, str | None]:
    if not path.is_file():
        return None, None
    values = files.read_json(path, max_bytes=1 << 26, error=TokenizerError)
    if not isinstance(values, dict):
        raise TokenizerError(f"`{path}` is not a table")
    return _name(values.get("bos_token")), _name(values.get("eos_token"))


def _name(value: Any) -> str | None:
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else None
