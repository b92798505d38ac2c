"""Vocabularies in the GGUF files we write: the ids of a text stay what they were, or it is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import sentencepiece
from gguf.constants import GGMLQuantizationType as Quantization
from sentencepiece import sentencepiece_model_pb2

from criadero.errors import FormatError
from criadero.formats.exporting import export_gguf
from criadero.formats.gguf_header import read_header
from criadero.formats.gguf_tokenizer import read_tokenizer
from criadero.formats.gguf_vocabulary import vocabulary_keys
from criadero.formats.load import load_model, load_tokenizer, open_model, tokenizer_of
from criadero.formats.model_card import TrainingFacts
from criadero.tokenizer.byte_bpe import ByteBPETokenizer
from criadero.tokenizer.sentencepiece_tokenizer import SentencePieceTokenizer
from criadero.tokenizer.tokenizer import Tokenizer
from foreign_models import logits, random_llama, write_gguf
from packaged import packaged_file
from tokenizer_texts import FRAGMENTS, text_of_all_kinds, trained_sentencepiece

TEXTS = [text_of_all_kinds(3, 200), *FRAGMENTS, "".join(FRAGMENTS)]


def round_trip(tokenizer: Tokenizer, folder: Path, *, vocab_size: int | None = None) -> Tokenizer:
    """Write a model of this vocabulary as GGUF and read the tokenizer back."""
    model = random_llama(vocab_size=vocab_size or tokenizer.vocab_size, num_hidden_layers=1)
    model.save_pretrained(folder / "hf")
    tokenizer.save(folder / "hf")
    export_gguf(folder / "hf", folder / "m.gguf", facts_of=lambda stored: TrainingFacts(), dtype="q8_0")
    back = tokenizer_of(open_model(folder / "m.gguf"))
    assert back is not None
    return back


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> SentencePieceTokenizer:
    return trained_sentencepiece(tmp_path_factory.mktemp("trained"), vocab_size=400)


def test_a_trained_sentencepiece_vocabulary_comes_back(
    trained: SentencePieceTokenizer, tmp_path: Path
) -> None:
    back = round_trip(trained, tmp_path)
    assert back.encode_batch(TEXTS) == trained.encode_batch(TEXTS)
    assert (back.bos_id, back.eos_id, back.adds_bos) == (trained.bos_id, trained.eos_id, trained.adds_bos)
    assert back.special_tokens == trained.special_tokens
    assert [back.piece(i) for i in range(400)] == [trained.piece(i) for i in range(400)]


def test_every_key_of_llama_cpp_is_there(trained: SentencePieceTokenizer, tmp_path: Path) -> None:
    round_trip(trained, tmp_path)
    fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
    found = {key: field.contents() for key, field in fields.items() if key.startswith("tokenizer.")}
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(trained.model_bytes())
    assert found == {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [piece.piece for piece in proto.pieces],
        "tokenizer.ggml.scores": pytest.approx([piece.score for piece in proto.pieces]),
        "tokenizer.ggml.token_type": [piece.type for piece in proto.pieces],
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": proto.normalizer_spec.add_dummy_prefix,
        "tokenizer.ggml.remove_extra_whitespaces": False,
    }


def test_rows_beyond_the_vocabulary_get_names_that_no_text_has(
    trained: SentencePieceTokenizer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    back = round_trip(trained, tmp_path, vocab_size=416)
    assert caplog.text == ""
    assert (back.vocab_size, back.piece(400), back.piece(415)) == (416, "[PAD400]", "[PAD415]")
    texts = [*TEXTS, "[PAD400] and [PAD415]"]
    assert back.encode_batch(texts) == trained.encode_batch(texts)


def test_control_tokens_kept_as_text_or_beside_the_model_become_controls(
    trained: SentencePieceTokenizer, tmp_path: Path
) -> None:
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(trained.model_bytes())
    proto.pieces.add(piece="<|im_start|>", score=0.0, type=4)
    proto.pieces.add(piece="\u2581typed", score=0.0, type=4)
    chat = SentencePieceTokenizer(proto.SerializeToString(), added_tokens={"<|im_end|>": 402})
    back = round_trip(chat, tmp_path)
    assert back.special_tokens == chat.special_tokens
    types = read_header(tmp_path / "m.gguf").metadata["tokenizer.ggml.token_type"]
    assert types[-3:].tolist() == [3, 4, 3]
    texts = [*TEXTS, "<|im_start|>user typed<|im_end|>"]
    assert back.encode_batch(texts) == chat.encode_batch(texts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: setattr(p.trainer_spec, "model_type", 1), "is not a BPE model"),
        (lambda p: setattr(p.normalizer_spec, "escape_whitespaces", False), "does not spell blanks"),
        (lambda p: [setattr(x, "type", 5) for x in p.pieces if x.type == 6], "no pieces for single bytes"),
    ],
)
def test_a_sentencepiece_model_that_llama_cpp_encodes_differently_is_refused(
    change: Callable[[Any], Any], message: str, trained: SentencePieceTokenizer
) -> None:
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(trained.model_bytes())
    change(proto)
    tokenizer = SentencePieceTokenizer(trained.model_bytes())
    tokenizer._model = proto.SerializeToString()
    with pytest.raises(FormatError, match=message) as refused:
        vocabulary_keys(tokenizer, vocab_size=400)
    assert "criadero export MODEL hf OUT" in str(refused.value)


def test_normalising_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("\n".join(text_of_all_kinds(seed, 60) for seed in range(60)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(tmp_path / "m"), vocab_size=500, model_type="bpe",
        normalization_rule_name="nmt_nfkc", byte_fallback=True, minloglevel=2,
    )  # fmt: skip
    tokenizer = SentencePieceTokenizer.from_file(tmp_path / "m.model")
    with pytest.raises(FormatError, match="normalises text"):
        vocabulary_keys(tokenizer, vocab_size=500)


@pytest.fixture
def bytes_table(tmp_path: Path) -> dict[str, Any]:
    """A byte-level `tokenizer.json` as it is read from a GGUF file with the pre-tokenizer of SmolLM2."""
    write_gguf(tmp_path / "bytes.gguf", random_llama(), Quantization.F32, vocabulary="gpt2")
    tokenizer = load_tokenizer(tmp_path / "bytes.gguf")
    assert isinstance(tokenizer, ByteBPETokenizer)
    return json.loads(tokenizer.table_bytes())


@pytest.mark.parametrize("pre", ["smollm", "gpt-2", "llama-bpe"])
def test_a_byte_level_vocabulary_comes_back(pre: str, tmp_path: Path) -> None:
    write_gguf(tmp_path / "bytes.gguf", random_llama(), Quantization.F32, vocabulary="gpt2")
    metadata = dict(read_header(tmp_path / "bytes.gguf").metadata) | {"tokenizer.ggml.pre": pre}
    tokenizer = read_tokenizer(metadata, tmp_path / "bytes.gguf")
    back = round_trip(tokenizer, tmp_path, vocab_size=288)
    after = read_header(tmp_path / "m.gguf").metadata
    assert after["tokenizer.ggml.pre"] == pre
    assert after["tokenizer.ggml.merges"] == metadata["tokenizer.ggml.merges"]
    assert after["tokenizer.ggml.tokens"][:271] == metadata["tokenizer.ggml.tokens"]
    assert back.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
    assert (back.bos_id, back.eos_id, back.adds_bos) == (269, 270, False)


def test_defaults_that_are_left_out_do_not_hide_a_known_pre_tokenizer(bytes_table: dict[str, Any]) -> None:
    _, byte_level = bytes_table["pre_tokenizer"]["pretokenizers"]
    del byte_level["use_regex"]
    byte_level["trim_offsets"] = False
    keys = vocabulary_keys(tokenizer_with(bytes_table), vocab_size=271)
    assert keys["pre"] == "smollm"
    bytes_table["pre_tokenizer"] = byte_level
    assert vocabulary_keys(tokenizer_with(bytes_table), vocab_size=271)["pre"] == "gpt-2"


def tokenizer_with(table: dict[str, Any]) -> ByteBPETokenizer:
    return ByteBPETokenizer(json.dumps(table).encode(), bos="<|im_start|>", eos="<|im_end|>")


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "NFC"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": r"\s+"}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]}},
    ],
    ids=["normaliser", "blank in front", "another pattern"],
)  # fmt: skip
def test_a_pre_tokenizer_without_a_name_is_refused(
    change: dict[str, Any], bytes_table: dict[str, Any]
) -> None:
    with pytest.raises(FormatError, match="no name for") as refused:
        vocabulary_keys(tokenizer_with(bytes_table | change), vocab_size=271)
    assert "criadero export MODEL hf OUT" in str(refused.value)


def test_a_chat_template_goes_along_as_text(tmp_path: Path) -> None:
    write_gguf(tmp_path / "bytes.gguf", random_llama(), Quantization.F32, vocabulary="gpt2")
    export_gguf(tmp_path / "bytes.gguf", tmp_path / "m.gguf", facts_of=lambda stored: TrainingFacts())
    before, after = open_model(tmp_path / "bytes.gguf"), open_model(tmp_path / "m.gguf")
    assert after.chat_template == before.chat_template
    assert after.chat_template is not None


def test_a_model_without_tokenizer_takes_ids(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = random_llama()
    model.save_pretrained(tmp_path / "hf")
    export_gguf(tmp_path / "hf", tmp_path / "m.gguf", facts_of=lambda stored: TrainingFacts(), dtype="f32")
    loaded = load_model(tmp_path / "m.gguf")
    assert loaded.tokenizer is None
    assert (logits(loaded.model) - logits(model)).abs().max() < 1e-4
    assert "takes and gives token ids only" in caplog.text


@pytest.mark.network
@pytest.mark.parametrize("name", ["llama", "llama3", "gpt2"])
def test_the_golden_cases_of_real_vocabularies_stay_exact(name: str, tmp_path: Path) -> None:
    """The keys, as the reader would meet them, of vocabularies of 32 to 128 thousand tokens."""
    path = packaged_file(f"{name}-vocab-gguf")
    metadata = read_header(path).metadata
    keys = vocabulary_keys(read_tokenizer(metadata, path), vocab_size=len(metadata["tokenizer.ggml.tokens"]))
    writer = gguf.GGUFWriter(tmp_path / "v.gguf", "llama")
    for key, value in keys.items():
        add = {str: writer.add_string, bool: writer.add_bool, int: writer.add_uint32, list: writer.add_array}
        add[type(value)](f"tokenizer.ggml.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    back = read_tokenizer(read_header(tmp_path / "v.gguf").metadata, tmp_path / "v.gguf")
    texts = packaged_file(f"{name}-vocab-inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    lines = packaged_file(f"{name}-vocab-out").read_text().split("\n")
    assert back.encode_batch(texts) == [[int(i) for i in line.split()] for line in lines]
    assert keys["tokens"] == metadata["tokenizer.ggml.tokens"]
    if name == "llama":
        assert keys["scores"] == metadata["tokenizer.ggml.scores"].tolist()
        assert keys["token_type"] == metadata["tokenizer.ggml.token_type"].tolist()
    else:
        assert keys["merges"] == metadata["tokenizer.ggml.merges"]
