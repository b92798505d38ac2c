"""Training: LLaMA's trainer spec, repeatable, bounded, nothing lost, clear refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from sentencepiece import sentencepiece_model_pb2

from criadero.errors import RunError, TokenizerError
from criadero.tokenizer.tokenizer import load
from criadero.tokenizer.train import TokenizerTrainConfig, train

SMALL = TokenizerTrainConfig(vocab_size=320)


def texts(count: int = 30) -> list[str]:
    return [f"line {i} of the text, with words and {i * 37} numbers\n" * 20 for i in range(count)]


def proto(folder: Path) -> sentencepiece_model_pb2.ModelProto:
    return sentencepiece_model_pb2.ModelProto.FromString((folder / "tokenizer.model").read_bytes())


def test_the_written_spec_is_the_released_llama_tokenizers(trained_folder: Path) -> None:
    spec = proto(trained_folder).trainer_spec
    assert spec.model_type == sentencepiece_model_pb2.TrainerSpec.BPE
    assert spec.character_coverage == pytest.approx(0.99995)
    assert (spec.input_sentence_size, spec.shuffle_input_sentence) == (200_000_000, True)
    assert (spec.max_sentence_length, spec.max_sentencepiece_length) == (4192, 16)
    assert spec.split_by_unicode_script
    assert spec.split_by_whitespace
    assert spec.split_by_number
    assert spec.split_digits
    assert spec.allow_whitespace_only_pieces
    assert spec.byte_fallback
    assert spec.hard_vocab_limit
    assert not spec.treat_whitespace_as_suffix
    assert (spec.unk_id, spec.bos_id, spec.eos_id, spec.pad_id) == (0, 1, 2, -1)
    assert (spec.seed_sentencepiece_size, spec.num_threads) == (1_000_000, 80)
    assert spec.shrinking_factor == pytest.approx(0.75)
    assert spec.unk_surface == " \u2047 "
    normalizer = proto(trained_folder).normalizer_spec
    assert (normalizer.name, normalizer.precompiled_charsmap) == ("identity", b"")
    assert (normalizer.add_dummy_prefix, normalizer.remove_extra_whitespaces) == (True, False)


@pytest.mark.network
def test_the_spec_equals_a_published_llama_style_model(trained_folder: Path, mistral_model: bytes) -> None:
    """Fields that describe the method, read from somebody else's file; sizes and paths differ."""
    ours = proto(trained_folder).trainer_spec
    theirs = sentencepiece_model_pb2.ModelProto.FromString(mistral_model).trainer_spec
    of_the_run = {"input", "model_prefix", "vocab_size", "num_threads", "user_defined_symbols"}
    of_the_run |= {"train_extremely_large_corpus", "input_format", "self_test_sample_size"}
    for field in ours.DESCRIPTOR.fields:
        if field.name not in of_the_run:
            assert getattr(ours, field.name) == getattr(theirs, field.name), field.name


def test_vocabulary_is_controls_then_bytes_then_learned_pieces(trained_folder: Path) -> None:
    tokenizer = load(trained_folder)
    assert tokenizer.vocab_size == 420
    assert [tokenizer.piece(i) for i in range(4)] == ["<unk>", "<s>", "</s>", "<0x00>"]
    assert tokenizer.piece(258) == "<0xFF>"
    assert tokenizer.special_tokens == {"<unk>": 0, "<s>": 1, "</s>": 2}
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.kind) == (1, 2, "sentencepiece")


def test_no_piece_holds_two_digits(trained_folder: Path) -> None:
    tokenizer = load(trained_folder)
    pieces = [tokenizer.piece(i) for i in range(259, tokenizer.vocab_size)]
    assert max(sum(c.isdigit() for c in piece) for piece in pieces) == 1


def test_same_seed_gives_the_same_file_and_another_sample_another(tmp_path: Path) -> None:
    sampled = SMALL.model_copy(update={"sample_bytes": 4000, "vocab_size": 300})
    first = train({"a": texts()}, tmp_path / "1", sampled)
    again = train({"a": texts()}, tmp_path / "2", sampled)
    other = train({"a": texts()}, tmp_path / "3", sampled.model_copy(update={"seed": 1}))
    assert first.sha256 == again.sha256
    assert (tmp_path / "1/tokenizer.json").read_bytes() == (tmp_path / "2/tokenizer.json").read_bytes()
    assert first.sha256 != other.sha256


def test_a_seed_that_sentencepiece_does_not_take_is_refused_by_the_config(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="seed"):
        TokenizerTrainConfig(seed=1 << 32)
    train({"a": texts()}, tmp_path / "a", SMALL.model_copy(update={"seed": (1 << 32) - 1}))


def test_long_lines_are_learned_from_and_reported(tmp_path: Path) -> None:
    long_line = "unforgettable " * 2000
    tokenizer = train({"books": [long_line]}, tmp_path / "out", TokenizerTrainConfig(vocab_size=280))
    assert len(tokenizer.encode("unforgettable")) < 8
    record = json.loads((tmp_path / "out/training.json").read_text())
    assert record["sources"]["books"]["cut_lines"] == 1
    assert record["sources"]["books"]["kept_bytes"] > 0.99 * len(long_line)
    assert record["sha256"] == tokenizer.sha256


def test_training_writes_nothing_to_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train({"a": texts()}, tmp_path / "out", SMALL)
    assert capfd.readouterr() == ("", "")


def test_a_vocabulary_too_large_for_the_text_names_the_largest(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"vocabulary of 32,000 is too large .* at most \d+") as caught:
        train({"a": texts(2)}, tmp_path / "out", TokenizerTrainConfig())
    assert "vocab_size" in str(caught.value.hint)
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_too_small_for_the_characters_says_so(tmp_path: Path) -> None:
    han = "".join(chr(0x4E00 + i) for i in range(300))
    with pytest.raises(TokenizerError, match="too small"):
        train({"a": [han]}, tmp_path / "out", TokenizerTrainConfig(vocab_size=270))


def test_no_text_and_an_existing_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="no text"):
        train({"a": ["", "\n \n"]}, tmp_path / "out", SMALL)
    with pytest.raises(TokenizerError, match="no source"):
        train({}, tmp_path / "out", SMALL)
    (tmp_path / "there").mkdir()
    with pytest.raises(RunError, match="exists"):
        train({"a": texts()}, tmp_path / "there", SMALL)
