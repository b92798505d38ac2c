"""Real vocabularies made by others: their published golden cases, and fuzzed text against SentencePiece."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sentencepiece
from hypothesis import given

from criadero.tokenizer.sentencepiece_tokenizer import SentencePieceTokenizer
from criadero.tokenizer.tokenizer import Tokenizer
from packaged import packaged_file
from tokenizer_texts import fuzzed, hostile_text, streamed

pytestmark = pytest.mark.network

SEPARATOR = "\n__ggml_vocab_test__\n"


def golden_cases(name: str) -> list[tuple[str, list[int]]]:
    texts = packaged_file(f"{name}-vocab-inp").read_bytes().decode().split(SEPARATOR)
    lines = packaged_file(f"{name}-vocab-out").read_text().split("\n")
    return [(text, [int(i) for i in line.split()]) for text, line in zip(texts, lines, strict=True)]


@pytest.mark.parametrize("name", ["llama", "llama3", "gpt2"])
def test_the_47_golden_cases_are_exact(gguf_tokenizer: Callable[[str], Tokenizer], name: str) -> None:
    tokenizer = gguf_tokenizer(f"{name}-vocab-gguf")
    cases = golden_cases(name)
    assert len(cases) == 47
    for text, ids in cases:
        assert tokenizer.encode(text) == ids, text
        assert tokenizer.decode(ids) == text
        assert streamed(tokenizer, ids) == text


def test_the_real_llama_vocabulary_has_its_known_shape(llama: Tokenizer) -> None:
    assert (llama.vocab_size, llama.bos_id, llama.eos_id, llama.adds_bos) == (32_000, 1, 2, True)
    assert llama.encode("Hello world", bos=True) == [1, 15043, 3186]
    assert llama.piece(259) == "\u2581\u2581"
    assert isinstance(llama, SentencePieceTokenizer)
    assert llama.encoder == "kitoken"


@fuzzed
@given(text=hostile_text)
def test_kitoken_equals_sentencepiece_on_the_real_llama_vocabulary(llama: Tokenizer, text: str) -> None:
    assert isinstance(llama, SentencePieceTokenizer)
    judge = sentencepiece.SentencePieceProcessor(model_proto=llama.model_bytes())
    ids = llama.encode(text)
    assert ids == judge.EncodeAsIds(text)
    assert not {0, 1, 2} & set(ids)
    assert streamed(llama, ids) == text.replace("\u2581", " ")


def test_a_genuine_model_file_is_read_and_kept_byte_for_byte(mistral_model: bytes) -> None:
    tokenizer = SentencePieceTokenizer(mistral_model)
    judge = sentencepiece.SentencePieceProcessor(model_proto=mistral_model)
    text = "The year 1984:\n\n    def f(x): return x  # 🦙"
    assert tokenizer.encode(text) == judge.EncodeAsIds(text)
    assert tokenizer.encoder == "kitoken"
    assert tokenizer.model_bytes() == mistral_model


def test_smollm2_writes_its_chat_tokens_only_as_controls(smollm2: Tokenizer) -> None:
    ids = smollm2.encode("<|im_start|>user\nhi<|im_end|>")
    assert not set(ids) & set(smollm2.special_tokens.values())
    assert smollm2.decode(ids) == "<|im_start|>user\nhi<|im_end|>"
    assert (smollm2.kind, smollm2.vocab_size, smollm2.adds_bos) == ("byte-bpe", 49_152, False)
