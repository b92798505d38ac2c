"""Texts that tokenizers are tested with: ordinary ones of many kinds, and hostile ones for property tests."""

from __future__ import annotations

import random
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st

from criadero.tokenizer.sentencepiece_tokenizer import SentencePieceTokenizer
from criadero.tokenizer.tokenizer import Tokenizer
from criadero.tokenizer.train import TokenizerTrainConfig, train

SOME_WORDS = """
the of and to in a is that it was for on are as with his they at be this from have or by one had
not but what all were when we there can an your which their said if do will each about how up out them then
she many some so these would other into has more her two like him see time could no make than first been its
who now people my made over did down only way find use may water long little very after words called just
naïve café Übermut señor год вода слово 日本 言葉 def return import self None print for while"""


def text_of_all_kinds(seed: int, num_words: int) -> str:
    """Return repeatable text: words of several scripts, numbers, indentation, lines, punctuation."""
    generator = random.Random(seed)
    parts = []
    for _ in range(num_words):
        kind = generator.random()
        if kind < 0.05:
            parts.append(str(generator.randrange(100_000)))
        elif kind < 0.10:
            parts.append(generator.choice([".\n", ";\n    ", ", ", "!\n\n", "\t"]))
        else:
            parts.append(generator.choice(SOME_WORDS.split()))
    return " ".join(parts)


# Everything that encoders get wrong, to be strung together at random.
FRAGMENTS = [
    *("a", "ab", "the", " the", "  ", " " * 17, "\t", "\n", "\r\n", "\u00a0", "\u3000", "1", "1984", "=" * 9),
    *("\x00", "\x01", "\x7f", "\x85", "\u200b", "\ufeff", "\ufffd", "\ufffe", "\u202e", "\U0010ffff"),
    *("e\u0301", "é", "ñ", "\u0301", "ﬁ", "ß", "İ", "ǅ", "日本", "言", "한국어", "ไทย", "नमस्ते", "مرحبا"),
    *("🤷🏽\u200d♂️", "👨\u200d👩\u200d👧", "🇪🇸", "𝕏", "\u2581", "\u2581\u2581", " \u2581 ", "▅", "\u2047"),
    *("<s>", "</s>", "<unk>", "<0x41>", "<0x0A>", "<|im_end|>", "[INST]", "<pad>"),
]
hostile_text = st.one_of(
    st.text(),
    st.lists(st.sampled_from(FRAGMENTS), max_size=25).map("".join),
    st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=5)), max_size=15).map("".join),
)
fuzzed = settings(max_examples=300, deadline=None)


def streamed(tokenizer: Tokenizer, ids: list[int]) -> str:
    decoder = tokenizer.stream()
    return "".join([*(decoder.push(i) for i in ids), decoder.finish()])


def trained_sentencepiece(folder: Path, *, vocab_size: int) -> SentencePieceTokenizer:
    """Return a tokenizer that was trained on texts of all kinds."""
    texts = [text_of_all_kinds(seed, 300) for seed in range(8)]
    train({"text": texts}, folder / "tokenizer", TokenizerTrainConfig(vocab_size=vocab_size))
    return SentencePieceTokenizer.from_file(folder / "tokenizer" / "tokenizer.model")
