"""Learning a vocabulary from text, with the released LLaMA tokenizer's settings.

Entry point: `train`. A bounded sample of lines (sample.py) goes to SentencePiece's trainer; the result is a
tokenizer folder that transformers and llama.cpp read, with `training.json` saying what it was learned from.
Source: LLaMA 2.1, "Tokenizer", and the trainer spec stored in the released `tokenizer.model`.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from criadero import config as configuration
from criadero import files
from criadero.config import Config
from criadero.errors import TokenizerError
from criadero.tokenizer.sample import Sample, sample_lines
from criadero.tokenizer.tokenizer import Tokenizer

logger = logging.getLogger("criadero")

MAX_LINE_BYTES = 4192

# The trainer spec of the released LLaMA tokenizer, less what TokenizerTrainConfig sets.
LLAMA_TRAINER_SPEC: dict[str, Any] = {
    "model_type": "bpe",
    "input_sentence_size": 200_000_000,
    "shuffle_input_sentence": True,
    "max_sentence_length": MAX_LINE_BYTES,
    "max_sentencepiece_length": 16,
    "split_by_unicode_script": True,
    "split_by_whitespace": True,
    "split_by_number": True,
    "split_digits": True,
    "treat_whitespace_as_suffix": False,
    "allow_whitespace_only_pieces": True,
    "byte_fallback": True,
    "hard_vocab_limit": True,
    "vocabulary_output_piece_score": True,
    "seed_sentencepiece_size": 1_000_000,
    "shrinking_factor": 0.75,
    "num_threads": 80,
    "unk_id": 0,
    "bos_id": 1,
    "eos_id": 2,
    "pad_id": -1,
    "unk_surface": " \u2047 ",
    "normalization_rule_name": "identity",
    "add_dummy_prefix": True,
    "remove_extra_whitespaces": False,
}


class TokenizerTrainConfig(Config):
    """What may be chosen; everything else is LLaMA's.

    Attributes:
        vocab_size: ids in all: 3 control, 256 byte, the rest learned.
        character_coverage: share of the text's characters that get a piece of their own, the rest is bytes.
        sample_bytes: UTF-8 bytes of text to learn from; the trainer needs about ten times that in memory.
        weights: share of the sample by source; unset, sources count by their size.
        seed: chooses the sample.
    """

    vocab_size: Annotated[int, Field(ge=260, le=1_000_000)] = 32_000
    character_coverage: Annotated[float, Field(ge=0.98, le=1.0)] = 0.99995
    sample_bytes: Annotated[int, Field(ge=1)] = 200_000_000
    weights: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] | None = None
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0


def train(
    texts_by_source: Mapping[str, Iterable[str]], out_folder: Path, config: TokenizerTrainConfig | None = None
) -> Tokenizer:
    """Learn a vocabulary and write it as a tokenizer folder.

    Args:
        texts_by_source: documents by the name of their source, read once.
        out_folder: must not exist.

    Raises:
        TokenizerError: no text, weights that do not fit the sources, or a vocabulary too large for the text.
        RunError: `out_folder` exists.
    """
    from criadero.tokenizer.sentencepiece_tokenizer import SentencePieceTokenizer

    config = config or TokenizerTrainConfig()
    sample = sample_lines(
        texts_by_source,
        config.sample_bytes,
        weights=config.weights,
        max_line_bytes=MAX_LINE_BYTES,
        seed=config.seed,
    )
    _report(sample)
    tokenizer = SentencePieceTokenizer(_train_model(sample.lines, config), where="the trained model")
    with files.atomic_folder(out_folder) as folder:
        tokenizer.save(folder)
        files.write_json(folder / "training.json", _record(tokenizer, sample, config))
    return tokenizer


def _train_model(lines: list[str], config: TokenizerTrainConfig) -> bytes:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.set_random_generator_seed(config.seed)
    try:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=iter(lines),
            model_writer=model,
            vocab_size=config.vocab_size,
            character_coverage=config.character_coverage,
            minloglevel=2,
            **LLAMA_TRAINER_SPEC,
        )
    except RuntimeError as problem:
        raise _training_error(str(problem), config.vocab_size) from None
    return model.getvalue()


def _training_error(message: str, vocab_size: int) -> TokenizerError:
    """Say what SentencePiece's message means for the one thing that usually goes wrong."""
    limit = re.search(r"<= (\d+)", message)
    if limit is not None:
        return TokenizerError(
            f"a vocabulary of {vocab_size:,} is too large for this text, "
            f"which gives at most {int(limit[1]):,}",
            hint=f"set vocab_size to {limit[1]} or less, or train on more text",
        )
    needed = re.search(r"smaller than required_chars\. (\d+) vs (\d+)", message)
    if needed is not None:
        return TokenizerError(
            f"a vocabulary of {vocab_size:,} is too small: the text has {int(needed[2]):,} "
            "characters, bytes and control tokens that each need an id",
            hint=f"set vocab_size above {needed[2]}, or character_coverage lower",
        )
    return TokenizerError(f"SentencePiece could not train: {message}")


def _report(sample: Sample) -> None:
    for name, source in sample.sources.items():
        logger.info(
            "%s: %d lines, %s; sampled %d lines, %s",
            name,
            source.read_lines,
            files.format_bytes(source.read_bytes),
            source.kept_lines,
            files.format_bytes(source.kept_bytes),
        )
    cut = sum(source.cut_lines for source in sample.sources.values())
    if cut:
        logger.info("%d lines were longer than %d bytes and were cut to be used", cut, MAX_LINE_BYTES)


def _record(tokenizer: Tokenizer, sample: Sample, config: TokenizerTrainConfig) -> dict[str, Any]:
    return {
        "format_version": 1,
        "sha256": tokenizer.sha256,
        "config": configuration.to_values(config),
        "sources": {name: asdict(source) for name, source in sample.sources.items()},
    }
