"""A random model with grouped-query heads and a tokenizer of single bytes, both made in a moment."""

from __future__ import annotations

from collections.abc import Iterable

import tokenizers
import torch

from criadero.model.config import ModelConfig
from criadero.model.init import initialize
from criadero.model.transformer import Transformer
from criadero.tokenizer.byte_bpe import ByteBPETokenizer, byte_alphabet

BOS, EOS, END = 256, 257, 258


def byte_tokenizer() -> ByteBPETokenizer:
    """Ids 0 to 255 are bytes; 256 opens every text, 257 ends it, 258 ends a turn."""
    library = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=byte_alphabet(), merges=[]))
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.decoder = tokenizers.decoders.ByteLevel()
    library.add_special_tokens(["<s>", "</s>", "<|im_end|>"])
    library.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", BOS)]
    )
    return ByteBPETokenizer(library.to_str().encode(), bos="<s>", eos="</s>")


def tiny_model(*, max_seq_len: int = 96, vocab_size: int = 261, seed: int = 5) -> Transformer:
    """A float32 model of 3 layers; its weights are large, so that its choices vary."""
    config = ModelConfig(
        vocab_size=vocab_size,
        dim=24,
        num_layers=3,
        num_heads=6,
        num_kv_heads=2,
        hidden_dim=40,
        max_seq_len=max_seq_len,
    )
    model = Transformer(config)
    initialize(model, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(15)
    return model


class ScriptedModel(Transformer):
    """Says the given ids one after the other, one each time it is run, whatever it is shown.

    Without a head its logits are 0, which no kernel's are: so it is run itself.
    """

    def __init__(self, ids: Iterable[int], *, max_seq_len: int = 96) -> None:
        super().__init__(tiny_model(max_seq_len=max_seq_len).config)
        self.script = iter(ids)
        self.shown: list[list[int]] = []

    def forward(self, tokens_BT, *, head=None, **_):
        """Give the head what makes the logit of the next id 50 and all others 0."""
        if head is None:
            return torch.zeros(*tokens_BT.shape, self.config.vocab_size)
        self.shown.append(tokens_BT.flatten().tolist())
        wanted = torch.zeros(1, 1, self.config.vocab_size)
        wanted[0, 0, next(self.script)] = 50.0
        return head(wanted, torch.eye(self.config.vocab_size))


def run_again(run):
    """Stand in for the capture of a CUDA graph: run, and what is replayed is the run."""
    run()
    return run
