"""The `tokenizer.json` of a byte-level BPE vocabulary that is known only as tokens and merges.

Entry points: `byte_bpe_from_vocabulary`, used for GGUF files, which name their pre-tokenizer (how text is cut
into words before merging) instead of describing it, and `pre_tokenizer_name`, the way back. The three that
LLaMA's heirs use are known here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from criadero.errors import TokenizerError
from criadero.tokenizer.huggingface import added_token, opening
from criadero.tokenizer.sentencepiece_model import CONTROL, UNKNOWN, USER_DEFINED

_LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}

# By GGUF's name (tokenizer.ggml.pre): the steps, and whether a word that is a whole token skips the merges.
_PRE_TOKENIZERS: dict[str, tuple[list[dict[str, Any]], bool]] = {
    "gpt-2": ([_BYTE_LEVEL], False),
    "smollm": ([{"type": "Digits", "individual_digits": True}, _BYTE_LEVEL], False),
    "llama-bpe": (
        [
            {
                "type": "Split",
                "pattern": {"Regex": _LLAMA3_WORDS},
                "behavior": "Isolated",
                "invert": False,
            },
            _BYTE_LEVEL | {"use_regex": False},
        ],
        True,
    ),
}
_OTHER_NAMES = {"llama3": "llama-bpe", "llama-v3": "llama-bpe", "gpt2": "gpt-2"}


def byte_bpe_from_vocabulary(
    tokens: Sequence[str],
    merges: Sequence[str],
    *,
    token_types: Sequence[int],
    pre: str,
    opening_id: int | None = None,
) -> bytes:
    """Return the content of a `tokenizer.json` for `ByteBPETokenizer`.

    Args:
        tokens: one per id, in GPT-2's byte alphabet.
        merges: "left right", best first.
        token_types: numbered as in GGUF: 1 normal, 2 unknown, 3 control, 4 user defined.
        pre: name of the pre-tokenizer as GGUF spells it.
        opening_id: token that opens every text, None for none.

    Raises:
        TokenizerError: lengths that differ, a malformed merge, an unknown pre-tokenizer.
    """
    if len(tokens) != len(token_types):
        raise TokenizerError(f"the vocabulary has {len(tokens)} tokens and {len(token_types)} types")
    if opening_id is not None and not 0 <= opening_id < len(tokens):
        raise TokenizerError(f"the opening token {opening_id} is outside the vocabulary of {len(tokens)}")
    steps, ignore_merges = _pre_tokenizer(pre)
    table = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            added_token(index, tokens[index], special=kind != USER_DEFINED)
            for index, kind in enumerate(token_types)
            if kind in (UNKNOWN, CONTROL, USER_DEFINED)
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": None if opening_id is None else opening(tokens[opening_id], opening_id),
        "decoder": _BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": ignore_merges,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [_pair(merge) for merge in merges],
        },
    }
    return json.dumps(table, ensure_ascii=False).encode("utf-8", "replace")


def pre_tokenizer_name(table: Mapping[str, Any]) -> str | None:
    """Return GGUF's name for how a `tokenizer.json` cuts and merges text, None if it has none.

    Args:
        table: a `tokenizer.json` of byte-level BPE.
    """
    if table.get("normalizer") is not None or table["model"].get("byte_fallback"):
        return None
    steps, skips = _cutting(table.get("pre_tokenizer")), bool(table["model"].get("ignore_merges"))
    known = {name: ([_plain(step) for step in own], flag) for name, (own, flag) in _PRE_TOKENIZERS.items()}
    return next((name for name, found in known.items() if found == (steps, skips)), None)


def _cutting(pre_tokenizer: Any) -> list[dict[str, Any]]:
    """Return the steps of a `pre_tokenizer` without what does not change the ids."""
    if not isinstance(pre_tokenizer, dict):
        return []
    parts = pre_tokenizer.get("pretokenizers") if pre_tokenizer.get("type") == "Sequence" else [pre_tokenizer]
    return [_plain(part) for part in parts or [] if isinstance(part, dict)]


def _plain(step: Mapping[str, Any]) -> dict[str, Any]:
    """Return a step with its defaults filled in; `trim_offsets` moves places in the text, not ids."""
    filled = {"use_regex": True, "add_prefix_space": True} if step.get("type") == "ByteLevel" else {}
    return {key: value for key, value in (filled | dict(step)).items() if key != "trim_offsets"}


def byte_alphabet() -> dict[str, int]:
    """Return GPT-2's table from the characters that spell tokens to the bytes they stand for."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + n): byte for n, byte in enumerate(others)}


def _pre_tokenizer(name: str) -> tuple[list[dict[str, Any]], bool]:
    found = _PRE_TOKENIZERS.get(_OTHER_NAMES.get(name, name))
    if found is None:
        raise TokenizerError(
            f"the pre-tokenizer {name!r} is not known, expected one of {', '.join(sorted(_PRE_TOKENIZERS))}",
            hint="use the same model in Hugging Face form, whose tokenizer.json describes it",
        )
    return found


def _pair(merge: str) -> list[str]:
    left, blank, right = merge.partition(" ")
    if not (left and blank and right) or " " in right:
        raise TokenizerError(f"the merge {merge!r} is not two tokens with a blank between")
    return [left, right]
