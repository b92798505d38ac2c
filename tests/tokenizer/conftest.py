"""Tokenizers to test with: one trained here on text of all kinds, and real ones from published packages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from criadero.formats.gguf_header import read_header
from criadero.formats.gguf_tokenizer import read_tokenizer
from criadero.tokenizer.sentencepiece_tokenizer import SentencePieceTokenizer
from criadero.tokenizer.tokenizer import Tokenizer
from criadero.tokenizer.train import TokenizerTrainConfig, train
from packaged import packaged_file
from tokenizer_texts import text_of_all_kinds


@pytest.fixture(scope="session")
def trained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer") / "trained"
    texts = [text_of_all_kinds(seed, 500) for seed in range(20)]
    train({"text": texts}, folder, TokenizerTrainConfig(vocab_size=420))
    return folder


@pytest.fixture(scope="session")
def trained(trained_folder: Path) -> SentencePieceTokenizer:
    return SentencePieceTokenizer.from_file(trained_folder / "tokenizer.model")


@pytest.fixture(scope="session")
def mistral_model() -> bytes:
    return packaged_file("mistral-tokenizer").read_bytes()


def read_gguf(key: str) -> Tokenizer:
    path = packaged_file(key)
    return read_tokenizer(read_header(path).metadata, path)


@pytest.fixture(scope="session")
def gguf_tokenizer() -> Callable[[str], Tokenizer]:
    return read_gguf


@pytest.fixture(scope="session")
def llama() -> Tokenizer:
    return read_gguf("llama-vocab-gguf")


@pytest.fixture(scope="session")
def smollm2() -> Tokenizer:
    return read_gguf("smollm2-gguf")


@pytest.fixture(scope="session")
def byte_bpe_table() -> dict[str, Any]:
    library = tokenizers.Tokenizer(tokenizers.models.BPE())
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator([text_of_all_kinds(seed, 300) for seed in range(5)], trainer)
    found: dict[str, Any] = json.loads(library.to_str())
    return found
