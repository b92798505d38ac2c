"""The whole path on one small machine: raw data -> corpus -> tokenizer -> shards -> a model that talks.

Entry point: `run_demo`. It is the training config of configs/demo.toml with what must come before it made
from the raw samples: the corpus of `samples/recipe.toml`, of which each source becomes token shards at the
path the config names. Each step is skipped if a former run finished it, so a stopped demo goes on where it
was.
"""

from __future__ import annotations

import logging
import lzma
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from criadero import files
from criadero.carbon.ledger import EnergyTotals, read_segments
from criadero.carbon.ledger import total as total_energy
from criadero.corpus.build import CARD_NAME, CorpusResult, build
from criadero.corpus.config import load_recipe
from criadero.corpus.engine.progress import OnProgress
from criadero.corpus.engine.ray_executor import RayExecutor
from criadero.corpus.explain import DOCUMENTS_FOLDER
from criadero.corpus.ngram.config import NgramConfig
from criadero.corpus.ngram.model import NgramModel
from criadero.corpus.ngram.score import bits_per_byte
from criadero.corpus.ngram.train import train_on_tokens
from criadero.corpus.sources import text
from criadero.errors import DataError, StoppedEarly
from criadero.formats.load import load_model
from criadero.generate.engine import Generator
from criadero.generate.sampling import SamplingConfig
from criadero.model.presets import num_parameters
from criadero.report.loss_curve import draw_loss_curve
from criadero.shards.config import ShardConfig, SourceConfig
from criadero.shards.document_ids import is_held_out
from criadero.shards.write import BuildProgress, build_from_files
from criadero.tokenizer import tokenizer as tokenizers
from criadero.tokenizer.tokenizer import Tokenizer
from criadero.tokenizer.train import TokenizerTrainConfig
from criadero.tokenizer.train import train as train_tokenizer
from criadero.train.config import RunConfig
from criadero.train.hooks import Hook
from criadero.train.loop import TrainResult, train
from criadero.train.stop import StopFlag

logger = logging.getLogger("criadero")

PROMPT = "The people of this country"
# This seed holds out documents of every sample; a hash of the id draws them.
_SHARDS = ShardConfig(heldout_fraction=0.04, seed=8)
# The 0.99995 of LLaMA would give half of this small vocabulary to characters that Wikipedia names once.
_CHARACTER_COVERAGE = 0.9998


@dataclass(frozen=True)
class XzSizes:
    """What xz (preset 9e, a dictionary larger than the text) makes of the same text, bytes.

    Attributes:
        heldout_text: the held-out text itself, UTF-8.
        alone: the held-out text compressed alone.
        after_training_text: what it adds to the compressed training text.
    """

    heldout_text: int
    alone: int
    after_training_text: int

    @property
    def bits_per_byte_alone(self) -> float:
        """Comparable with a model that has seen nothing else."""
        return 8 * self.alone / self.heldout_text

    @property
    def bits_per_byte_after_training_text(self) -> float:
        """Comparable with the trained model."""
        return 8 * self.after_training_text / self.heldout_text


@dataclass(frozen=True)
class DemoResult:
    """What the demo shows at its end; energy in kWh, carbon in kg of CO2 equivalent."""

    parameters: int
    tokens: int
    heldout_bits_per_byte: float
    ngram_bits_per_byte: float
    xz_bits_per_byte_alone: float
    xz_bits_per_byte_after_training_text: float
    prompt: str
    sample: str
    energy_kwh: float
    energy_measured_fraction: float
    kgco2e: float
    seconds: float
    corpus_card: str
    loss_curve: str
    metrics: str
    checkpoints: str
    model: str


def run_demo(
    config: RunConfig,
    recipe: Path,
    *,
    stop: StopFlag,
    progress: OnProgress | None = None,
    hooks: Sequence[Hook] = (),
) -> DemoResult:
    """Run the demo into `config.run.folder`, or go on with it.

    Args:
        recipe: of a corpus with the sources that the config names.
        stop: raised to ask for an orderly end.
        progress: called while the corpus is made.
        hooks: called around each training step.

    Raises:
        StoppedEarly: `stop` was raised; run it again to go on.
        DataError: a sample file is missing, or what a former run left does not fit the config.
    """
    corpus = _make_corpus(config, recipe, stop=stop, progress=progress)
    paths = {source.name: corpus.folder / DOCUMENTS_FOLDER / source.name for source in config.data.sources}
    tokenizer = _make_tokenizer(config, paths)
    _stop_if_asked(stop)
    for source in config.data.sources:
        _make_shards(source, paths[source.name], tokenizer, stop)
    ngram_bits_per_byte = _score_ngrams(config.run.folder / "5-gram.bin", paths, tokenizer)
    _stop_if_asked(stop)
    logger.info("training a LLaMA of %s parameters", f"{num_parameters(config.model):,}")
    trained = train(config, stop=stop, hooks=hooks)
    logger.info("compressing the same text with xz, for comparison")
    result = _describe(config, trained, measure_xz(list(paths.values())), ngram_bits_per_byte)
    files.write_json(config.run.folder / "summary.json", asdict(result))
    return result


def _make_corpus(
    config: RunConfig, recipe: Path, *, stop: StopFlag, progress: OnProgress | None
) -> CorpusResult:
    settings = load_recipe(recipe)
    if missing := [s.name for s in config.data.sources if s.name not in settings.sources]:
        raise DataError(
            f"`{recipe}` has no source {', '.join(f'`{name}`' for name in missing)}",
            hint=f"it has {', '.join(settings.sources)}",
        )
    logger.info("making the corpus of %s", recipe)
    folder = config.run.folder / "corpus"
    with RayExecutor() as executor:
        return build(settings, folder, executor=executor, progress=progress, stop=lambda: stop.requested)


def _make_tokenizer(config: RunConfig, paths: dict[str, Path]) -> Tokenizer:
    """Learn the vocabulary from the training documents alone; what is held out stays unseen."""
    folder = config.run.folder / "tokenizer"
    wanted = config.model.vocab_size
    if not folder.exists():
        logger.info("learning a vocabulary of %s tokens", f"{wanted:,}")
        texts = {name: _texts(path, heldout=False) for name, path in paths.items()}
        settings = TokenizerTrainConfig(vocab_size=wanted, character_coverage=_CHARACTER_COVERAGE)
        return train_tokenizer(texts, folder, settings)
    tokenizer = tokenizers.load(folder)
    if tokenizer.vocab_size != wanted:
        raise DataError(
            f"`{folder}` has {tokenizer.vocab_size:,} tokens, the config asks for {wanted:,}",
            hint=f"remove `{config.run.folder}` or choose another run.folder",
        )
    return tokenizer


def _make_shards(source: SourceConfig, path: Path, tokenizer: Tokenizer, stop: StopFlag) -> None:
    if source.path.exists():
        return

    def progress(_: BuildProgress) -> None:
        _stop_if_asked(stop)

    built = build_from_files(
        [path],
        tokenizer,
        source.path,
        config=_SHARDS.model_copy(update={"source": source.name}),
        progress=progress,
    )
    tokens = built.splits["train"].num_tokens
    logger.info("source `%s`: %s training tokens", source.name, f"{tokens:,}")


def _all_texts(paths: Sequence[Path], *, heldout: bool) -> Iterator[str]:
    return (t for path in paths for t in _texts(path, heldout=heldout))


def _texts(path: Path, *, heldout: bool) -> Iterator[str]:
    for document in text.read(path):
        drawn = is_held_out(document.id, seed=_SHARDS.seed, fraction=_SHARDS.heldout_fraction)
        if drawn == heldout:
            yield document.text


def _score_ngrams(model: Path, paths: dict[str, Path], tokenizer: Tokenizer) -> float:
    """Train a 5-gram model on the tokens of the training text; return its held-out bits per byte."""
    everything = list(paths.values())
    if not model.exists():
        logger.info("training a 5-gram model on the same tokens, for comparison")
        training = (np.asarray(tokenizer.encode(t)) for t in _all_texts(everything, heldout=False))
        train_on_tokens(training, model, NgramConfig(), tokenizer_sha256=tokenizer.sha256)
    heldout = list(_all_texts(everything, heldout=True))
    return bits_per_byte(
        NgramModel.open(model),
        [np.asarray(ids) for ids in tokenizer.encode_batch(heldout)],
        text_bytes=sum(len(t.encode()) for t in heldout),
        vocab_size=tokenizer.vocab_size,
    )


def measure_xz(paths: list[Path]) -> XzSizes:
    """Compress the held-out text alone and after the training text; takes about a second a megabyte."""
    training = "\n".join(_all_texts(paths, heldout=False)).encode()
    heldout = "\n".join(_all_texts(paths, heldout=True)).encode()
    with ThreadPoolExecutor() as pool:  # lzma works outside the interpreter's lock
        alone, before, both = pool.map(xz_bytes, [heldout, training, training + heldout])
    return XzSizes(len(heldout), alone, both - before)


def xz_bytes(data: bytes) -> int:
    """Return the size of `data` compressed by xz at its best, with a dictionary that holds all of it."""
    dictionary = max(1 << 16, 1 << len(data).bit_length())
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": dictionary}]
    return len(lzma.compress(data, format=lzma.FORMAT_XZ, filters=filters))


def _describe(config: RunConfig, trained: TrainResult, xz: XzSizes, ngram_bits_per_byte: float) -> DemoResult:
    folder = config.run.folder
    energy: EnergyTotals = total_energy(read_segments(folder))
    return DemoResult(
        parameters=num_parameters(config.model),
        tokens=trained.state.tokens,
        heldout_bits_per_byte=trained.heldout["heldout_bits_per_byte"],
        ngram_bits_per_byte=ngram_bits_per_byte,
        xz_bits_per_byte_alone=xz.bits_per_byte_alone,
        xz_bits_per_byte_after_training_text=xz.bits_per_byte_after_training_text,
        prompt=PROMPT,
        sample=_sample_text(trained.model),
        energy_kwh=energy.kwh,
        energy_measured_fraction=energy.measured_fraction,
        kgco2e=energy.kgco2e(config.carbon.grid_kgco2e_per_kwh),
        seconds=energy.seconds,
        corpus_card=str(folder / "corpus" / CARD_NAME),
        loss_curve=str(draw_loss_curve(folder)),
        metrics=str(folder / "metrics.jsonl"),
        checkpoints=str(folder / "checkpoints"),
        model=str(trained.model),
    )


def _sample_text(model: Path) -> str:
    loaded = load_model(model)
    assert loaded.tokenizer is not None
    generator = Generator(loaded.model, loaded.tokenizer)
    sampling = SamplingConfig(max_tokens=80, temperature=0.7, top_p=0.9, seed=0, stop=())
    return generator.generate(generator.encode(PROMPT), sampling).text


def _stop_if_asked(stop: StopFlag) -> None:
    if stop.requested:
        raise StoppedEarly("stopped while preparing the data", hint="run the same command again to go on")
