"""A tokenizer as the `tokenizer.ggml.*` keys of a GGUF file, the inverse of gguf_tokenizer.py.

Entry point: `vocabulary_keys`. llama.cpp encodes with code of its own, which it picks by name: `llama` for
SentencePiece BPE, `gpt2` with the name of a pre-tokenizer for byte-level BPE. What none of them does exactly
is refused here, because a model that is fed other ids than it was trained on fails without a word.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from criadero.errors import FormatError
from criadero.notices import say_once
from criadero.tokenizer.byte_bpe import ByteBPETokenizer
from criadero.tokenizer.byte_bpe_table import pre_tokenizer_name
from criadero.tokenizer.sentencepiece_model import (
    BPE_MODEL,
    BYTE,
    CONTROL,
    NORMAL,
    UNUSED,
    USER_DEFINED,
    parse_model,
)
from criadero.tokenizer.sentencepiece_tokenizer import SentencePieceTokenizer
from criadero.tokenizer.tokenizer import Tokenizer

_HINT = (
    "export to Hugging Face form instead, which carries the tokenizer as it is: criadero export MODEL hf OUT"
)


@dataclass
class _Vocabulary:
    tokens: list[str]
    types: list[int]
    keys: dict[str, Any]
    scores: list[float] | None = None


def vocabulary_keys(tokenizer: Tokenizer | None, *, vocab_size: int) -> dict[str, Any]:
    """Return the keys that describe a tokenizer, without `tokenizer.ggml.` in front.

    Args:
        tokenizer: None writes that there is no vocabulary.
        vocab_size: rows of the model's embedding; ids beyond the tokenizer's get names of their own and are
            never used.

    Raises:
        FormatError: llama.cpp would encode text differently.
    """
    if tokenizer is None:
        say_once("the model has no tokenizer: the GGUF file takes and gives token ids only")
        return {"model": "no_vocab"}
    if isinstance(tokenizer, SentencePieceTokenizer):
        found = _sentencepiece(tokenizer)
    elif isinstance(tokenizer, ByteBPETokenizer):
        found = _byte_bpe(tokenizer)
    else:
        raise FormatError(f"a tokenizer of kind {tokenizer.kind!r} has no form in GGUF", hint=_HINT)
    padding = range(len(found.tokens), vocab_size)
    keys = {
        **found.keys,
        "tokens": [*found.tokens, *(f"[PAD{index}]" for index in padding)],
        "token_type": [*found.types, *(UNUSED for _ in padding)],
    }
    if found.scores is not None:
        keys["scores"] = [*found.scores, *(0.0 for _ in padding)]
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
    keys |= {key: token_id for key, token_id in ids.items() if token_id is not None}
    return keys | {"add_bos_token": tokenizer.adds_bos, "add_eos_token": False}


def _sentencepiece(tokenizer: SentencePieceTokenizer) -> _Vocabulary:
    proto = parse_model(tokenizer.model_bytes(), where="the tokenizer model")
    _check_sentencepiece(proto)
    normalizer = proto.normalizer_spec
    if normalizer.remove_extra_whitespaces:
        say_once("this tokenizer joins blanks that follow each other, and llama.cpp does not for its kind")
    added = range(len(proto.pieces), tokenizer.vocab_size)
    controls = set(tokenizer.special_tokens.values())
    unknown = proto.trainer_spec.unk_id
    types = [
        # Control tokens that are stored as text could be typed by anyone.
        CONTROL if piece.type == USER_DEFINED and index in controls else int(piece.type)
        for index, piece in enumerate(proto.pieces)
    ]
    return _Vocabulary(
        tokens=[tokenizer.piece(index) for index in range(tokenizer.vocab_size)],
        types=[*types, *(CONTROL for _ in added)],
        scores=[*(piece.score for piece in proto.pieces), *(0.0 for _ in added)],
        keys={
            "model": "llama",
            "pre": "default",
            "unknown_token_id": unknown,
            "add_space_prefix": bool(normalizer.add_dummy_prefix),
            "remove_extra_whitespaces": bool(normalizer.remove_extra_whitespaces),
        },
    )


def _check_sentencepiece(proto: Any) -> None:
    faults = {
        "is not a BPE model": proto.trainer_spec.model_type != BPE_MODEL,
        "normalises text before encoding it": bool(proto.normalizer_spec.precompiled_charsmap),
        "does not spell blanks as U+2581": not proto.normalizer_spec.escape_whitespaces,
        "has no pieces for single bytes": not any(piece.type == BYTE for piece in proto.pieces),
    }
    found = [fault for fault, is_there in faults.items() if is_there]
    if found:
        raise FormatError(
            f"the SentencePiece model {' and '.join(found)}, which llama.cpp does not encode exactly",
            hint=_HINT,
        )


def _byte_bpe(tokenizer: ByteBPETokenizer) -> _Vocabulary:
    table = json.loads(tokenizer.table_bytes())
    pre = pre_tokenizer_name(table)
    if pre is None:
        raise FormatError(
            "the tokenizer prepares text in a way that llama.cpp has no name for: normalizer "
            f"{_shown(table.get('normalizer'))}, pre-tokenizer {_shown(table.get('pre_tokenizer'))}",
            hint=_HINT,
        )
    types = [NORMAL] * tokenizer.vocab_size
    for entry in table.get("added_tokens") or []:
        types[entry["id"]] = USER_DEFINED
    for token_id in tokenizer.special_tokens.values():
        types[token_id] = CONTROL
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in table["model"]["merges"]]
    return _Vocabulary(
        tokens=[tokenizer.piece(index) for index in range(tokenizer.vocab_size)],
        types=types,
        keys={"model": "gpt2", "pre": pre, "merges": merges, "add_space_prefix": False},
    )


def _shown(part: Any) -> str:
    return json.dumps(part, ensure_ascii=False)[:300]
