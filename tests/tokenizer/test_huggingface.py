"""What `save` writes, read by transformers: the same ids and the same text."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from criadero.tokenizer.sentencepiece_tokenizer import BATTERY, SentencePieceTokenizer
from criadero.tokenizer.tokenizer import Tokenizer
from tokenizer_texts import FRAGMENTS, text_of_all_kinds


def texts() -> list[str]:
    generator = random.Random(5)
    mixed = ["".join(generator.choices(FRAGMENTS, k=30)) for _ in range(300)]
    runs = [character * n for character in "a =\n日" for n in range(1, 80)]
    return [*BATTERY, *mixed, *runs, text_of_all_kinds(7, 500)]


def assert_equal(theirs: Any, ours: Tokenizer) -> None:
    for text in texts():
        ids = ours.encode(text)
        # split_special_tokens is how transformers says "control tokens never come from text".
        found = theirs.encode(text, add_special_tokens=False, split_special_tokens=True)
        assert found == ids, text
        assert theirs.decode(ids) == ours.decode(ids), text


@pytest.mark.parametrize("class_name", ["AutoTokenizer", "PreTrainedTokenizerFast"])
def test_transformers_gives_identical_ids_for_a_trained_folder(
    trained: SentencePieceTokenizer, trained_folder: Path, class_name: str
) -> None:
    import transformers

    theirs = getattr(transformers, class_name).from_pretrained(trained_folder)
    assert_equal(theirs, trained)
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.unk_token_id) == (1, 2, 0)
    assert theirs("the").input_ids == trained.encode("the", bos=True)
    assert len(theirs) == trained.vocab_size


def test_identical_ids_beside_a_llama_config(trained: SentencePieceTokenizer, tmp_path: Path) -> None:
    """A model folder's config.json must not make transformers rebuild the tokenizer its own way."""
    from transformers import AutoTokenizer

    trained.save(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    assert_equal(AutoTokenizer.from_pretrained(tmp_path), trained)


def test_transformers_llama_class_agrees_on_text_that_opens_with_a_word(
    trained: SentencePieceTokenizer, trained_folder: Path
) -> None:
    """Before a text that opens with a blank, this class of transformers 5 leaves out the dummy prefix."""
    from transformers import LlamaTokenizer

    theirs = LlamaTokenizer.from_pretrained(trained_folder)
    for text in (text_of_all_kinds(seed, 200) for seed in range(20)):
        assert theirs.encode(text, add_special_tokens=False) == trained.encode(text)
        assert theirs.decode(trained.encode(text)) == text


@pytest.mark.network
def test_transformers_gives_identical_ids_for_the_real_llama_vocabulary(
    llama: Tokenizer, tmp_path: Path
) -> None:
    """Its blanks-only pieces all have the same score, which is where conversions go wrong."""
    from transformers import AutoTokenizer

    llama.save(tmp_path)
    assert_equal(AutoTokenizer.from_pretrained(tmp_path), llama)


def test_added_chat_tokens_reach_transformers(trained: SentencePieceTokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    added = {"<|im_start|>": 420, "<|im_end|>": 421}
    ours = SentencePieceTokenizer(trained.model_bytes(), added_tokens=added)
    ours.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.convert_tokens_to_ids("<|im_end|>") == 421
    assert_equal(theirs, ours)


def test_a_vocabulary_without_an_exact_table_is_written_as_model_only(
    trained: SentencePieceTokenizer, tmp_path: Path
) -> None:
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto.FromString(trained.model_bytes())
    proto.normalizer_spec.remove_extra_whitespaces = True
    SentencePieceTokenizer(proto.SerializeToString()).save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokenizer.model", "tokenizer_config.json"]
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["bos_token"] == "<s>"
