"""The public Python functions: the command line's verbs, with the same names and meaning.

What is listed in `__all__` here keeps its name, arguments and result within a major version;
everything else may move.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from criadero import config as configuration
from criadero.corpus.extra import require_extra
from criadero.errors import FormatError, UsageError
from criadero.formats.exporting import Exported
from criadero.formats.exporting import export_model as _export_model
from criadero.formats.importing import DTYPES, Imported
from criadero.formats.importing import import_model as _import_model
from criadero.formats.load import LoadedModel, load_tokenizer
from criadero.formats.load import load_model as _load_model
from criadero.generate.engine import Completion, Generator
from criadero.generate.sampling import SamplingConfig
from criadero.report.model_facts import training_facts
from criadero.shards.config import ShardConfig
from criadero.shards.manifest import BuildManifest
from criadero.shards.write import build_from_files
from criadero.tokenizer.tokenizer import Tokenizer
from criadero.tokenizer.train import TokenizerTrainConfig
from criadero.tokenizer.train import train as _train_tokenizer
from criadero.train.config import RunConfig
from criadero.train.loop import TrainResult
from criadero.train.loop import train as _train

if TYPE_CHECKING:
    from criadero.corpus.build import CorpusResult

__all__ = [
    "build_corpus",
    "build_shards",
    "export_model",
    "generate",
    "import_model",
    "load_model",
    "train",
    "train_tokenizer",
]


def build_corpus(
    recipe: str | Path, out: str | Path, *overrides: str, workers: int | None = None
) -> CorpusResult:
    """Make a corpus from raw data, or go on with one that was begun.

    What comes out in `out/documents/SOURCE` is an input of `build_shards`. Needs the libraries of
    `pip install 'criadero[corpus]'`.

    Args:
        recipe: a TOML file.
        out: folder to make.
        overrides: settings to replace, `section.key=value`.
        workers: tasks at a time, on a Ray of our own; 0 works in this process, None means one for each core.
    """
    with require_extra("building a corpus"):
        from criadero.corpus.build import build
        from criadero.corpus.config import load_recipe
        from criadero.corpus.engine.ray_executor import executor_for

    config = load_recipe(Path(recipe), overrides)
    tokenizer = None if config.mixture.tokenizer is None else load_tokenizer(config.mixture.tokenizer)
    with executor_for(workers) as executor:
        return build(config, Path(out), executor=executor, tokenizer=tokenizer)


def train_tokenizer(
    texts_by_source: Mapping[str, Iterable[str]], out: str | Path, **settings: Any
) -> Tokenizer:
    """Learn a SentencePiece BPE vocabulary with LLaMA's settings.

    Args:
        texts_by_source: documents by the name of their source.
        out: tokenizer folder to make.
        settings: fields of `TokenizerTrainConfig`, such as `vocab_size`.
    """
    config = configuration.validate(TokenizerTrainConfig, settings, where="train_tokenizer")
    return _train_tokenizer(texts_by_source, Path(out), config)


def build_shards(
    inputs: Iterable[str | Path], tokenizer: Tokenizer, out: str | Path, **settings: Any
) -> BuildManifest:
    """Encode text files into token shards with a train and a held-out split.

    Args:
        inputs: .txt, .jsonl or .parquet files, or folders of them.
        out: folder to make.
        settings: fields of `ShardConfig`, such as `heldout_fraction`.
    """
    config = configuration.validate(ShardConfig, settings, where="build_shards")
    return build_from_files([Path(path) for path in inputs], tokenizer, Path(out), config=config)


def train(config: str | Path | RunConfig, *overrides: str) -> TrainResult:
    """Pretrain, or go on with, the run of a config file.

    A run on the CPU tells the C library (glibc) to keep freed memory for the rest of this process.

    Args:
        config: a TOML file, or a ready config.
        overrides: settings to replace, `section.key=value`.
    """
    if not isinstance(config, RunConfig):
        config = configuration.load(RunConfig, Path(config), overrides)
    return _train(config)


def load_model(model: str | Path, *, dtype: str = "float32", device: str = "cpu") -> LoadedModel:
    """Load a MODEL: a Hugging Face folder, a run or checkpoint, a Meta folder or a .gguf file.

    Args:
        dtype: float32, bfloat16 or float16.
        device: such as `cpu` or `cuda:0`.
    """
    return _load_model(Path(model), dtype=_dtype(dtype), device=device)


def import_model(source: str | Path, out: str | Path, *, dtype: str | None = None) -> Imported:
    """Write a MODEL as a Hugging Face folder; the source is only read.

    Args:
        out: folder to make.
        dtype: float32, bfloat16 or float16; None keeps what is stored, float16 for quantised weights.
    """
    return _import_model(Path(source), Path(out), dtype=None if dtype is None else _dtype(dtype))


def export_model(source: str | Path, form: str, out: str | Path, *, dtype: str | None = None) -> Exported:
    """Write a MODEL for other programs; the source is only read.

    Args:
        form: hf for a Hugging Face folder with a model card, gguf for a file that llama.cpp runs.
        out: folder or file to make.
        dtype: hf: float32, bfloat16 or float16, None keeps what is stored; gguf: f32, f16, bf16, q8_0, q4_0
            or q4_1, None is f16.
    """
    return _export_model(Path(source), form, Path(out), facts_of=training_facts, dtype=dtype)


def _dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise UsageError(f"unknown dtype `{name}`, expected one of {', '.join(DTYPES)}")
    return DTYPES[name]


def generate(model: str | Path | LoadedModel, prompt: str, **sampling: Any) -> Completion:
    """Continue a text.

    Args:
        model: a MODEL path, or one that is loaded already.
        sampling: fields of `SamplingConfig`, such as `max_tokens` and `temperature`.

    Raises:
        FormatError: the model has no tokenizer.
    """
    loaded = model if isinstance(model, LoadedModel) else load_model(model)
    if loaded.tokenizer is None:
        raise FormatError(f"`{loaded.source}` has no tokenizer")
    config = configuration.validate(SamplingConfig, sampling, where="generate")
    generator = Generator(loaded.model, loaded.tokenizer)
    return generator.generate(generator.encode(prompt), config)
