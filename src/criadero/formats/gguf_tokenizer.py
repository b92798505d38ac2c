"""The vocabulary inside a GGUF file, rebuilt into a tokenizer.

Entry point: `read_tokenizer`. `llama` vocabularies become a SentencePiece model, `gpt2` ones a byte-level
BPE table. Both packages of the tokenizer check what they are given; here only shapes are checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from criadero.errors import FormatError
from criadero.tokenizer.byte_bpe import ByteBPETokenizer
from criadero.tokenizer.byte_bpe_table import byte_bpe_from_vocabulary
from criadero.tokenizer.sentencepiece_model import model_proto_from_vocabulary
from criadero.tokenizer.sentencepiece_tokenizer import SentencePieceTokenizer
from criadero.tokenizer.tokenizer import Tokenizer

_PREFIX = "tokenizer.ggml."


def read_tokenizer(metadata: Mapping[str, Any], path: Path) -> Tokenizer:
    """Build the tokenizer that a GGUF file's metadata describes.

    Raises:
        FormatError: a part of the vocabulary is missing or of another kind, an id is outside it.
        TokenizerError: the vocabulary is not one the tokenizer can be exact with.
    """
    kind = metadata.get(_PREFIX + "model")
    tokens = _strings(metadata, "tokens", path)
    types = _numbers(metadata, "token_type", path, kinds="iu")
    if kind == "llama":
        return _sentencepiece(metadata, path, tokens, types)
    if kind == "gpt2":
        return _byte_bpe(metadata, path, tokens, types)
    raise FormatError(f"`{path}` has a tokenizer of kind {kind!r:.100}, 'llama' or 'gpt2' expected")


def _sentencepiece(
    metadata: Mapping[str, Any], path: Path, tokens: list[str], types: list[int]
) -> SentencePieceTokenizer:
    special = {
        f"{name}_id": _token_id(metadata, key, path, len(tokens), default=default)
        for name, key, default in (("unk", "unknown", 0), ("bos", "bos", 1), ("eos", "eos", 2))
    }
    model = model_proto_from_vocabulary(
        tokens,
        _numbers(metadata, "scores", path, kinds="f"),
        types=types,
        add_dummy_prefix=bool(metadata.get(_PREFIX + "add_space_prefix", True)),
        remove_extra_whitespaces=bool(metadata.get(_PREFIX + "remove_extra_whitespaces", False)),
        **{name: -1 if token_id is None else token_id for name, token_id in special.items()},
    )
    return SentencePieceTokenizer(model, where=f"the vocabulary of `{path}`")


def _byte_bpe(
    metadata: Mapping[str, Any], path: Path, tokens: list[str], types: list[int]
) -> ByteBPETokenizer:
    bos = _token_id(metadata, "bos", path, len(tokens))
    eos = _token_id(metadata, "eos", path, len(tokens))
    table = byte_bpe_from_vocabulary(
        tokens,
        _strings(metadata, "merges", path),
        token_types=types,
        pre=str(metadata.get(_PREFIX + "pre", "default"))[:100],
        opening_id=bos if metadata.get(_PREFIX + "add_bos_token") else None,
    )
    names = {"bos": bos, "eos": eos}
    return ByteBPETokenizer(
        table,
        where=f"the vocabulary of `{path}`",
        **{name: None if token_id is None else tokens[token_id] for name, token_id in names.items()},
    )


def _strings(metadata: Mapping[str, Any], key: str, path: Path) -> list[str]:
    values = metadata.get(_PREFIX + key)
    if not isinstance(values, list):
        raise FormatError(f"`{path}` has no list of strings `{_PREFIX}{key}`")
    return values


def _numbers(metadata: Mapping[str, Any], key: str, path: Path, *, kinds: str) -> list[Any]:
    values = metadata.get(_PREFIX + key)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in kinds:
        raise FormatError(f"`{path}` has no list of numbers `{_PREFIX}{key}`")
    return values.tolist()  # type: ignore[no-any-return]


def _token_id(
    metadata: Mapping[str, Any], key: str, path: Path, vocab_size: int, *, default: int | None = None
) -> int | None:
    full_key = f"{_PREFIX}{key}_token_id"
    found = metadata.get(full_key, default)
    if found is not None and (type(found) is not int or not 0 <= found < vocab_size):
        raise FormatError(f"`{path}`: `{full_key}` is {found!r:.100}, a token of {vocab_size:,} expected")
    return found
