"""A model folder as transformers writes it, random, with a SentencePiece tokenizer trained on a few lines."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from criadero.tokenizer.tokenizer import Tokenizer
from criadero.tokenizer.train import TokenizerTrainConfig, train

LINES = [
    f"line {n}: the quick brown fox jumps over the lazy dog, {n * n} times; öl – über 🦊" for n in range(200)
]


def save_random_model(folder: Path, *, context: int = 64) -> tuple[LlamaForCausalLM, Tokenizer]:
    """Write weights, config and tokenizer into `folder`; return both."""
    tokenizer = train({"text": LINES}, folder.parent / "tokenizer", TokenizerTrainConfig(vocab_size=330))
    torch.manual_seed(4)
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=30,
        intermediate_size=44,
        num_hidden_layers=2,
        num_attention_heads=5,
        num_key_value_heads=1,
        max_position_embeddings=context,
        initializer_range=0.3,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
    )
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(folder)
    tokenizer.save(folder)
    return model, tokenizer
