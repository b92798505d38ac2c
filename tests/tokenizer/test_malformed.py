"""Damaged and hostile tokenizer files: our error, or a tokenizer that still works; never a crash."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sentencepiece import sentencepiece_model_pb2

from criadero.errors import TokenizerError
from criadero.tokenizer import tokenizer as interface
from criadero.tokenizer.sentencepiece_model import model_proto_from_vocabulary, parse_model
from criadero.tokenizer.sentencepiece_tokenizer import SentencePieceTokenizer
from criadero.tokenizer.tokenizer import load


def mutated(data: bytes, generator: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(generator.choice([1, 1, 2, 20])):
        at = generator.randrange(len(found))
        kind = generator.randrange(4)
        if kind == 0:
            found[at] = generator.randrange(256)
        elif kind == 1:
            del found[at : at + generator.randrange(1, 50)]
        elif kind == 2:
            found[at:at] = generator.randbytes(generator.randrange(1, 20))
        else:
            del found[at + 1 :]
        found = found or bytearray(b"x")
    return bytes(found)


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.json"])
def test_random_mutations_end_in_our_error_or_a_working_tokenizer(
    trained: SentencePieceTokenizer, byte_bpe_table: dict[str, Any], tmp_path: Path, name: str
) -> None:
    generator = random.Random(name)
    data = trained.model_bytes() if name == "tokenizer.model" else json.dumps(byte_bpe_table).encode()
    outcomes = set()
    for _ in range(1000):
        (tmp_path / name).write_bytes(mutated(data, generator))
        try:
            tokenizer = load(tmp_path)
        except TokenizerError:
            outcomes.add("refused")
            continue
        tokenizer.decode(tokenizer.encode("any text </s> 日"))
        outcomes.add("works")
    assert outcomes == {"refused", "works"}


Change = Callable[[Any], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.ClearField("pieces"), "0 pieces"),
        (lambda p: p.pieces.add(piece="<s>"), "same piece twice"),
        (lambda p: p.pieces.add(piece=""), "empty piece"),
        (lambda p: p.pieces.add(piece="x" * 5000), "more than 4096 bytes"),
        (lambda p: p.pieces.add(piece="zzz", score=float("nan")), "not a number"),
        (lambda p: p.pieces.add(piece="zzz", type=2), "2 unknown pieces"),
        (lambda p: p.pieces.add(piece="<0x0g>", type=6), "byte piece '<0x0g>'"),
        (lambda p: p.pieces.add(piece="<0x100>", type=6), "byte piece '<0x100>'"),
        (lambda p: setattr(p.trainer_spec, "treat_whitespace_as_suffix", True), "not supported"),
        (lambda p: setattr(p.normalizer_spec, "precompiled_charsmap", b"\xff\xff\xff\x7f"), "refused by"),
    ],
)
def test_models_that_cannot_be_are_refused(
    trained: SentencePieceTokenizer, change: Change, message: str
) -> None:
    proto = sentencepiece_model_pb2.ModelProto.FromString(trained.model_bytes())
    change(proto)
    with pytest.raises(TokenizerError, match=message):
        SentencePieceTokenizer(proto.SerializeToString())


def test_vocabularies_that_cannot_be_are_refused() -> None:
    with pytest.raises(TokenizerError, match="2 tokens, 1 scores and 2 types"):
        model_proto_from_vocabulary(["<unk>", "a"], [0.0], types=[2, 1])
    with pytest.raises(TokenizerError, match="entry that cannot be"):
        model_proto_from_vocabulary(["<unk>", "a"], [0.0, 0.0], types=[2, 99])
    with pytest.raises(TokenizerError, match="0 unknown pieces"):
        model_proto_from_vocabulary(["a"], [0.0], types=[1])


def test_what_is_not_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"neither `tokenizer\.model` nor `tokenizer\.json`"):
        load(tmp_path)
    with pytest.raises(TokenizerError, match=r"missing\.model` cannot be read"):
        load(tmp_path / "missing.model")
    (tmp_path / "tokenizer.model").write_bytes(b"")
    with pytest.raises(TokenizerError, match="is empty"):
        load(tmp_path)
    (tmp_path / "tokenizer.model").write_text("IQ== 0\nIg== 1\n")
    with pytest.raises(TokenizerError, match="tiktoken") as caught:
        load(tmp_path)
    assert "tokenizer.json" in str(caught.value.hint)


def test_files_are_read_up_to_a_cap(trained_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interface, "MAX_FILE_BYTES", 1000)
    with pytest.raises(TokenizerError, match="larger than 1,000 bytes"):
        load(trained_folder)


def test_deeply_nested_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("[" * 200_000)
    with pytest.raises(TokenizerError, match="is not JSON"):
        load(tmp_path)


@pytest.mark.parametrize("content", ["[]", '{"a": "b"}', '{"a": true}', "{"])
def test_malformed_added_tokens_are_refused(trained_folder: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.model").write_bytes((trained_folder / "tokenizer.model").read_bytes())
    (tmp_path / "added_tokens.json").write_text(content)
    with pytest.raises(TokenizerError, match=r"added_tokens\.json"):
        load(tmp_path)


def test_a_broken_tokenizer_config_is_refused(byte_bpe_table: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(byte_bpe_table))
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(TokenizerError, match="is not a table"):
        load(tmp_path)


def test_parsing_alone_never_trusts_lengths() -> None:
    """A length of 2^62 in a field header is refused without an allocation."""
    with pytest.raises(TokenizerError, match="not a SentencePiece model"):
        parse_model(b"\x0a" + b"\xff" * 8 + b"\x3f", where="the file")
