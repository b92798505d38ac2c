"""Tokenizers as transformers reads them: `tokenizer.json` and `tokenizer_config.json`.

Entry points: `save_sentencepiece`, used by `Tokenizer.save`, and `bpe_table`, the `tokenizer.json` of a
SentencePiece BPE model: merges are rebuilt from the scores, in the order SentencePiece would apply them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from criadero import files
from criadero.notices import say_once
from criadero.tokenizer.sentencepiece_model import (
    BPE_MODEL,
    CONTROL,
    NORMAL,
    SPACE,
    UNKNOWN,
    USER_DEFINED,
)

if TYPE_CHECKING:
    from criadero.tokenizer.sentencepiece_tokenizer import SentencePieceTokenizer


def save_sentencepiece(
    tokenizer: SentencePieceTokenizer, folder: Path, proto: Any, *, added: Mapping[str, int]
) -> None:
    """Write tokenizer.model, tokenizer.json, tokenizer_config.json (and added_tokens.json) into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with files.atomic_write(folder / "tokenizer.model") as stream:
        stream.write(tokenizer.model_bytes())
    if added:
        files.write_json(folder / "added_tokens.json", dict(added))
    if can_be_a_table(proto):
        files.write_json(folder / "tokenizer.json", bpe_table(proto, added=added, bos_id=tokenizer.bos_id))
    else:
        say_once("this vocabulary has no exact `tokenizer.json` form; only `tokenizer.model` is written")
    files.write_json(folder / "tokenizer_config.json", _config(tokenizer))


def can_be_a_table(proto: Any) -> bool:
    """Tell whether the model is BPE on unnormalised text, all that `bpe_table` expresses exactly."""
    normalizer = proto.normalizer_spec
    return bool(
        proto.trainer_spec.model_type == BPE_MODEL
        and not normalizer.precompiled_charsmap
        and not normalizer.remove_extra_whitespaces
        and normalizer.escape_whitespaces
    )


def bpe_table(proto: Any, *, added: Mapping[str, int], bos_id: int | None) -> dict[str, Any]:
    """Return the content of a `tokenizer.json` that gives the same ids as a SentencePiece BPE model."""
    pieces = [piece.piece for piece in proto.pieces]
    unknown = next((p.piece for p in proto.pieces if p.type == UNKNOWN), None)
    prefix = [{"type": "Prepend", "prepend": SPACE}] if proto.normalizer_spec.add_dummy_prefix else []
    blanks = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_token_entries(proto, added),
        "normalizer": {"type": "Sequence", "normalizers": [*prefix, blanks]},
        "pre_tokenizer": None,
        "post_processor": None if bos_id is None else opening(pieces[bos_id], bos_id),
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                *strip,
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": bool(proto.trainer_spec.byte_fallback),
            "ignore_merges": False,
            "vocab": {piece: index for index, piece in enumerate(pieces)},
            "merges": [list(pair) for pair in merges(proto)],
        },
    }


def merges(proto: Any) -> list[tuple[str, str]]:
    """Return every way to form a piece from two others, best score first, then lowest id.

    Only the blanks-only pieces of LLaMA share a score. There SentencePiece takes the leftmost pair, for
    which the order of ids is as good (tested); ordering them by length is not.
    """
    scores = {piece.piece: piece.score for piece in proto.pieces if piece.type == NORMAL}
    best_first = sorted(scores, key=lambda piece: -scores[piece])
    return [
        (piece[:cut], piece[cut:])
        for piece in best_first
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]


def _added_token_entries(proto: Any, added: Mapping[str, int]) -> list[dict[str, Any]]:
    own = [
        (index, piece.piece, piece.type != USER_DEFINED)
        for index, piece in enumerate(proto.pieces)
        if piece.type in (CONTROL, UNKNOWN, USER_DEFINED)
    ]
    return [
        added_token(index, name, special=special)
        for index, name, special in sorted([*own, *((i, n, True) for n, i in added.items())])
    ]


def added_token(index: int, name: str, *, special: bool) -> dict[str, Any]:
    """Return one entry of `added_tokens` in a `tokenizer.json`."""
    return {
        "id": index,
        "content": name,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }


def opening(name: str, bos_id: int) -> dict[str, Any]:
    """Return the post-processor that opens every sequence with the bos token, as LLaMA's does."""
    bos = {"SpecialToken": {"id": name, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [
            bos,
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": name, "type_id": 1}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {name: {"id": name, "ids": [bos_id], "tokens": [name]}},
    }


def _config(tokenizer: SentencePieceTokenizer) -> dict[str, Any]:
    names = {"bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id}
    special = {key: tokenizer.piece(index) for key, index in names.items() if index is not None}
    unknown = {"unk_token": "<unk>"} if "<unk>" in tokenizer.special_tokens else {}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **special,
        **unknown,
        "add_bos_token": tokenizer.bos_id is not None,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000_000,
    }
