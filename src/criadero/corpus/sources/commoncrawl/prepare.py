"""The models that the CommonCrawl recipe needs, made from sources that are finished and from its own pages.

Entry points: `needs`, `tables`, `prepare` and `calibrate`. A model stands in a folder of its own with a
manifest that says what it was made from; it is made again only when that changes.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from criadero import files
from criadero.corpus.document import BadRecord, Document
from criadero.corpus.engine.config import EngineConfig
from criadero.corpus.engine.inline import run_inline
from criadero.corpus.engine.keys import code_version
from criadero.corpus.engine.publish import MANIFEST
from criadero.corpus.engine.stage import Read, Reader, Split
from criadero.corpus.quality import cutoffs, references, train
from criadero.corpus.quality.cutoffs import Cutoffs
from criadero.corpus.quality.perplexity import Scorer, model_files
from criadero.corpus.sources import text
from criadero.corpus.sources.commoncrawl.pages import make_reader
from criadero.corpus.sources.commoncrawl.recipe import CommonCrawlConfig, scored_stages
from criadero.corpus.sources.wikipedia.references import reference_urls
from criadero.errors import DataError

logger = logging.getLogger("criadero")

MANIFEST_FILE = "manifest.json"
_FORMAT = 1
# Archives that pages for the cutoffs are taken from, spread over all of them.
_CALIBRATION_ARCHIVES = 16


def needs(config: CommonCrawlConfig) -> tuple[str, ...]:
    """Return the sources that must be finished before `prepare`."""
    wanted = []
    if config.perplexity is not False and config.perplexity_model is None:
        wanted.append(config.train_on)
    if config.references is not None and config.reference_model is None:
        wanted.append(config.references.pages)
    return tuple(dict.fromkeys(wanted))


def tables(config: CommonCrawlConfig) -> tuple[Path, ...]:
    """Return the files and folders besides inputs and other sources that models and stages are made from."""
    given = (config.language_model, config.perplexity_model, config.reference_model)
    return (*(path for path in given if path is not None), *config.wikipedia_dumps)


def prepare(
    config: CommonCrawlConfig,
    *,
    finished: Mapping[str, Path],
    folder: Path,
    inputs: Sequence[Path | str],
) -> CommonCrawlConfig:
    """Make what is missing of the models and return the config that names their folders.

    Args:
        finished: folder of the final documents of each source in `needs`.
        folder: for the models; those that are there and made from the same are left as they are.
        inputs: of this source; its own pages are what cutoffs are computed on.

    Raises:
        DataError: too little text, too few pages or references for a model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Path] = {}
    if config.perplexity is not False and config.perplexity_model is None:
        found["perplexity_model"] = _perplexity_model(config, finished, folder / "perplexity", inputs)
    if config.references is not None and config.reference_model is None:
        found["reference_model"] = _reference_model(config, finished, folder / "references")
    return config.model_copy(update=found)


def calibrate(model: Path, config: CommonCrawlConfig, *, inputs: Sequence[Path | str]) -> Cutoffs:
    """Compute the cutoffs of a model of one's own on a sample of crawled pages, and write them beside it.

    The pages go through the recipe's steps up to the perplexity; lines are compared within the sample.

    Raises:
        DataError: the folder holds no model, or no page of the sample is left.
    """
    sample = sample_pages(config, inputs)
    found = cutoffs.calibrate(
        Scorer(model).perplexities(page.text for page in sample), pages=f"a sample of {len(sample):,} pages"
    )
    found.save(model)
    logger.info("cutoffs by %s: head below %.1f, middle below %.1f", found.pages, found.head, found.middle)
    return found


def sample_pages(config: CommonCrawlConfig, inputs: Sequence[Path | str]) -> list[Document]:
    """Return pages as the perplexity step meets them, from archives spread over all inputs."""
    read, *steps = scored_stages(config, source="sample", inputs=inputs)
    assert isinstance(read, Read)
    step = -(-len(read.splits) // _CALIBRATION_ARCHIVES)
    chosen = read.splits[::step]
    limit = -(-config.calibration_pages // len(chosen))
    sampled = replace(
        read, splits=chosen, make=make_sample_reader, settings={**read.settings, "limit": limit}
    )
    return run_inline((sampled, *steps), max_set_aside=EngineConfig().max_quarantined).documents


def make_sample_reader(*, limit: int, **settings: Any) -> Reader:
    """Return the reader of the first pages of each archive."""
    reader = make_reader(**settings)

    def first(split: Split) -> Iterator[Document | BadRecord]:
        return islice(reader(split), limit)

    return first


def _perplexity_model(
    config: CommonCrawlConfig, finished: Mapping[str, Path], folder: Path, inputs: Sequence[Path | str]
) -> Path:
    documents = finished[config.train_on]

    def texts() -> Iterator[str]:
        return (d.text for d in text.read(documents) if _is_wanted(d, config))

    def make(target: Path) -> None:
        logger.info("training the perplexity model on %s", config.train_on)
        train.train(texts, target)
        model_files(target)
        calibrate(target, config, inputs=inputs)

    settings = config.model_dump(
        mode="json",
        include={
            "calibration_pages",
            "languages",
            "language_threshold",
            "lines",
            "main_content",
            "max_record_bytes",
            "min_characters",
        },
    )
    made_from = [settings, _hashes(documents), _sizes(inputs)]
    return _made(folder, json.dumps(made_from, sort_keys=True), make)


def _is_wanted(document: Document, config: CommonCrawlConfig) -> bool:
    return document.metadata.get("language", config.languages[0]) in config.languages


def _reference_model(config: CommonCrawlConfig, finished: Mapping[str, Path], folder: Path) -> Path:
    wanted, dumps = config.references, config.wikipedia_dumps
    assert wanted is not None
    if not dumps:
        raise DataError(
            "the reference classifier needs to know what Wikipedia cites",
            hint="set `wikipedia_dumps` to the pages-articles dump, or `reference_model` to a trained one",
        )
    documents = finished[wanted.pages]

    def make(target: Path) -> None:
        logger.info("training the reference classifier on %s", wanted.pages)
        urls = chain.from_iterable(map(reference_urls, dumps))
        report = references.train(lambda: text.read(documents), urls, target, config=wanted)
        logger.info("reference classifier: AUC %.3f on %s held-out pages", report.auc, report.held_out)

    settings = wanted.model_dump(mode="json", exclude={"threshold"})
    made_from = [settings, _hashes(documents), [files.sha256_file(dump) for dump in dumps]]
    return _made(folder, json.dumps(made_from, sort_keys=True), make)


def _made(folder: Path, made_from: str, make: Callable[[Path], None]) -> Path:
    """Return `folder` as it is if it was made from the same, else make it anew."""
    key = files.sha256_bytes(f"{_FORMAT} {code_version()} {made_from}".encode())
    manifest = folder / MANIFEST_FILE
    if manifest.exists() and files.read_json(manifest).get("key") == key:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    files.remove_leftovers(folder.parent)
    with files.atomic_folder(folder) as target:
        make(target)
        written = {path.name: files.sha256_file(path) for path in sorted(target.iterdir())}
        files.write_json(target / MANIFEST_FILE, {"format": _FORMAT, "key": key, "files": written})
    return folder


def _hashes(folder: Path) -> list[str]:
    """Name the documents of a source by the hashes its manifest has, without reading all of them again."""
    if (manifest := folder / MANIFEST).is_file():
        return [part["sha256"] for part in files.read_json(manifest)["parts"]]
    return [files.sha256_file(path) for path in _below(folder)]


def _sizes(inputs: Iterable[Path | str]) -> list[str]:
    """Name inputs cheaply: archives may be terabytes, and cutoffs need only be of such pages."""
    local = {str(given): _below(Path(given)) for given in inputs if "://" not in str(given)}
    found = [f"{path.name} {path.stat().st_size}" for paths in local.values() for path in paths]
    return sorted([*found, *(str(given) for given in inputs if "://" in str(given))])


def _below(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
