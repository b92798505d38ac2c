"""A run small enough to train in a second: tokenizer of 300 ids, shards, and a model of 4 layers of width 32.

`TinyRun.make(folder)` builds tokenizer and shards once; the session fixture `tiny` in conftest.py shares one
among all tests. `tiny.config(tmp_path)` writes a TOML file for a fresh run folder. A step is 4 sequences of
32 tokens and an epoch is 9 steps, so a run of 20 steps goes through the text a little more than twice.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from criadero import config as configuration
from criadero.corpus.document import Document
from criadero.shards.config import ShardConfig
from criadero.shards.document_ids import is_held_out
from criadero.shards.write import build
from criadero.tokenizer.tokenizer import Tokenizer
from criadero.tokenizer.train import TokenizerTrainConfig
from criadero.tokenizer.train import train as train_tokenizer
from criadero.train.config import RunConfig

SEQ_LEN = 32
BATCH_SEQUENCES = 4
STEP_TOKENS = SEQ_LEN * BATCH_SEQUENCES
EPOCH_STEPS = 9
VOCAB_SIZE = 300
STEPS = 20

_WORDS = (
    "the",
    "of",
    "a",
    "mill",
    "river",
    "stone",
    "old",
    "turns",
    "under",
    "grain",
    "slowly",
    "by",
    "night",
    "23",
)
_SHARDS = ShardConfig(heldout_fraction=0.2, shard_tokens=400)
_TOML = """
[run]
folder = '{run}'

[model]
vocab_size = {vocab_size}
dim = 32
num_layers = 4
num_heads = 4
num_kv_heads = 2
hidden_dim = 48
max_seq_len = 64

[[data.sources]]
name = "tiny"
path = '{shards}'

[data]
seq_len = {seq_len}

[train]
tokens = {tokens}
batch_tokens = {batch_tokens}
micro_batch_sequences = 2
device = "cpu"
compute_dtype = "float32"
timeout_seconds = 60

[optimizer]
learning_rate = 3e-3

[schedule]
warmup_steps = 3

[heldout]
every_steps = 10
tokens = 100

[checkpoint]
every_steps = 5
"""


@dataclass(frozen=True)
class TinyRun:
    """What a tiny run is made from.

    Attributes:
        tokenizer: tokenizer folder.
        shards: what `shards build` makes: `train`, `heldout`, `tokenizer`.
    """

    tokenizer: Path
    shards: Path

    @classmethod
    def make(cls, folder: Path) -> TinyRun:
        """Learn the vocabulary and build three shards of 36 sequences in all."""
        vocabulary = TokenizerTrainConfig(vocab_size=VOCAB_SIZE)
        tokenizer = train_tokenizer({"tiny": _sentences(300)}, folder / "tokenizer", vocabulary)
        build(_documents(tokenizer), tokenizer, folder / "shards", config=_SHARDS)
        return cls(folder / "tokenizer", folder / "shards")

    def config(self, folder: Path, *, steps: int = STEPS, shards: Path | None = None) -> Path:
        """Write `folder/tiny.toml` for a run of `steps` steps in `folder/run`, and return its path."""
        path = folder / "tiny.toml"
        text = _TOML.format(
            run=folder / "run",
            shards=shards or self.shards,
            vocab_size=VOCAB_SIZE,
            seq_len=SEQ_LEN,
            tokens=steps * STEP_TOKENS,
            batch_tokens=STEP_TOKENS,
        )
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def run_config(self, folder: Path, *overrides: str, steps: int = STEPS) -> RunConfig:
        """Return the config of `config` as the program would load it, with overrides."""
        return configuration.load(RunConfig, self.config(folder, steps=steps), overrides)


def _sentences(count: int) -> Iterator[str]:
    chance = random.Random(7)
    for number in range(count):
        yield " ".join([str(number), *chance.choices(_WORDS, k=chance.randint(2, 5))]) + "."


def _documents(tokenizer: Tokenizer) -> Iterator[Document]:
    """Yield short documents until the train split holds an epoch's sequences and not one more."""
    needed, train_tokens = EPOCH_STEPS * STEP_TOKENS + 1, 0
    for number, sentence in enumerate(_sentences(10_000)):
        if train_tokens >= needed:
            return
        document = Document(f"tiny-{number}", sentence, "tiny")
        if not is_held_out(document.id, seed=_SHARDS.seed, fraction=_SHARDS.heldout_fraction):
            length = len(tokenizer.encode(sentence, bos=True, eos=True))
            assert length < SEQ_LEN
            train_tokens += length
        yield document
