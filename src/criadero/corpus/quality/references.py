"""Pages that read like those Wikipedia cites, told by a linear classifier (LLaMA 2.1, "CommonCrawl").

Entry points: `train` and `stage`. Positives are pages already held whose address a Wikipedia dump cites,
negatives other pages held, as many, chosen by hash; nothing is crawled. Both classes have the same least
length and vectors of one length, so that the classifier cannot become a detector of long pages.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field

from criadero import files
from criadero.config import Config
from criadero.corpus.document import Document, Drop
from criadero.corpus.engine.stage import DocumentFunction, Each
from criadero.corpus.quality import linear, measures
from criadero.corpus.quality.linear import LinearModel, Vector
from criadero.corpus.urls import host_of, normalise
from criadero.errors import DataError

MODEL_FILE = "classifier.safetensors"
REPORT_FILE = "report.json"
_HELD_OUT_IN = 10  # one host in ten
_MIN_HELD_OUT = 10  # of each class, for its numbers to mean anything

Hashes = npt.NDArray[np.uint64]


class ReferenceConfig(Config):
    """How the classifier is trained and which pages stay.

    Attributes:
        threshold: least probability of a page that stays. The paper kept what was "classified as
            references", which is 0.5; RedPajama took 0.25.
        pages: the finished source whose pages are the examples; they must have the metadata `url`.
        min_characters: of an example, of either class.
        min_positives: fewer cited pages are an error.
        max_positives: of more, those with the smallest hashes are taken.
        bits: there are 2 ** bits weights.
        pairs: pairs of neighbouring words count too, not words alone.
        epochs: times each example is seen.
        seed: of the order they are seen in.
    """

    threshold: float = Field(default=0.5, ge=0, le=1)
    pages: str = "c4"
    min_characters: int = Field(default=1000, ge=1)
    min_positives: int = Field(default=1000, ge=20)
    max_positives: int = Field(default=50_000, ge=20)
    bits: int = Field(default=20, ge=8, le=26)
    pairs: bool = True
    epochs: int = Field(default=5, ge=1, le=100)
    seed: int = Field(default=0, ge=0, lt=1 << 32)


@dataclass(frozen=True)
class ReferenceReport:
    """What the classifier was trained on and how it does on hosts it has not seen.

    Attributes:
        reference_urls: different addresses the dump cites.
        pages: held pages with an address and enough text, each text once.
        positives, negatives: examples, held-out ones included.
        held_out: examples of each class on held-out hosts.
        auc: of the classifier there.
        auc_of_length: of the page's length alone there; far from 0.5, the classes differ in length.
        calibration_error: mean gap between probability and share of positives.
        kept_positives, kept_negatives: shares at the thresholds 0.25 and 0.5.
        reliability: bins of a reliability diagram.
    """

    reference_urls: int
    pages: int
    positives: int
    negatives: int
    held_out: tuple[int, int]
    auc: float
    auc_of_length: float
    calibration_error: float
    kept_positives: dict[str, float]
    kept_negatives: dict[str, float]
    reliability: tuple[measures.Bin, ...]


def stage(config: ReferenceConfig, folder: Path) -> Each:
    """Return the step that drops pages unlike references (score: probability).

    Raises:
        DataError: the folder has no classifier.
    """
    path = folder / MODEL_FILE
    linear.load(path)
    settings = {"model": str(path), "threshold": config.threshold}
    return Each("reference_classifier", make, settings, files=(path,), score="reference_score")


def make(*, model: str, threshold: float) -> DocumentFunction:
    """Return the step's function with the classifier loaded."""
    classifier = linear.load(Path(model))
    features = classifier.features()

    def function(document: Document) -> Document | Drop:
        probability = classifier.probability(features(document.text))
        if probability < threshold:
            return Drop("unlike_references", score=probability)
        return document.with_metadata(reference_score=repr(probability))

    return function


def train(
    pages: Callable[[], Iterable[Document]],
    reference_urls: Iterable[str],
    folder: Path,
    *,
    config: ReferenceConfig | None = None,
) -> ReferenceReport:
    """Train a classifier, write it with its report into `folder`, which must exist, and return the report.

    Args:
        pages: gives the pages held, in the same order at every call (it is called twice).
        reference_urls: addresses that Wikipedia cites, in any form and number.

    Raises:
        DataError: too few pages are cited, or too few are not.
    """
    config = config or ReferenceConfig()
    cited = _hashes_of_urls(reference_urls)
    chosen = _choose(_held(pages, config.min_characters), cited, config)
    examples = list(_examples(_held(pages, config.min_characters), chosen, config))
    train_part = [e for e in examples if not e.held_out]
    model = linear.fit(
        [e.vector for e in train_part],
        [e.positive for e in train_part],
        bits=config.bits,
        pairs=config.pairs,
        epochs=config.epochs,
        seed=config.seed,
    )
    report = _report(model, [e for e in examples if e.held_out], chosen, len(cited))
    model.save(folder / MODEL_FILE)
    files.write_json(folder / REPORT_FILE, {"config": config.model_dump(), **asdict(report)})
    return report


@dataclass(frozen=True)
class _Page:
    """A page held that may be an example."""

    text: str
    url: str
    digest: int


@dataclass(frozen=True)
class _Chosen:
    """The digests of the texts to train on, and the hashes of the addresses that cited ones have."""

    positives: frozenset[int]
    negatives: frozenset[int]
    addresses: frozenset[int]
    pages: int


@dataclass(frozen=True)
class _Example:
    vector: Vector
    positive: bool
    held_out: bool
    characters: int


def _held(pages: Callable[[], Iterable[Document]], min_characters: int) -> Iterator[_Page]:
    for page in pages():
        url = normalise(page.metadata.get("url", ""))
        if url is not None and len(page.text) >= min_characters:
            yield _Page(page.text, url, _hash(page.text))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _hashes_of_urls(urls: Iterable[str]) -> Hashes:
    """Return the sorted hashes of the addresses, 8 bytes each: a dump cites tens of millions."""
    normalised = (normalise(url) for url in urls)
    return np.unique(np.fromiter((_hash(url) for url in normalised if url is not None), np.uint64))


def _choose(pages: Iterable[_Page], cited: Hashes, config: ReferenceConfig) -> _Chosen:
    """Choose positives and as many negatives, each text once, by the smallest digests."""
    digests, urls = _columns(pages)
    is_cited = np.isin(urls, cited)
    positives = np.unique(digests[is_cited])
    others = np.setdiff1d(digests, positives)
    count = min(len(positives), config.max_positives)
    if count < config.min_positives or len(others) < count:
        raise DataError(
            f"too few examples for the reference classifier: of {len(positives) + len(others):,} pages with "
            f"an address and {config.min_characters:,} characters, {len(positives):,} are among the "
            f"{len(cited):,} addresses that Wikipedia cites; needed are {config.min_positives:,} that are "
            f"and as many that are not",
            hint="hold more pages, take a larger dump, or lower `min_positives`",
        )
    return _Chosen(
        positives=frozenset(positives[:count].tolist()),
        negatives=frozenset(others[:count].tolist()),
        addresses=frozenset(urls[is_cited & np.isin(digests, positives[:count])].tolist()),
        pages=len(positives) + len(others),
    )


def _columns(pages: Iterable[_Page]) -> tuple[Hashes, Hashes]:
    digests, urls = array("Q"), array("Q")
    for page in pages:
        digests.append(page.digest)
        urls.append(_hash(page.url))
    return np.array(digests, np.uint64), np.array(urls, np.uint64)


def _examples(pages: Iterable[_Page], chosen: _Chosen, config: ReferenceConfig) -> Iterator[_Example]:
    features = linear.Features(bits=config.bits, pairs=config.pairs)
    seen: set[int] = set()
    for page in pages:
        # A cited text under another address is no example: the host must be the one that is cited.
        positive = page.digest in chosen.positives and _hash(page.url) in chosen.addresses
        if page.digest in seen or not (positive or page.digest in chosen.negatives):
            continue
        seen.add(page.digest)
        held_out = _hash(host_of(page.url)) % _HELD_OUT_IN == 0
        yield _Example(features(page.text), positive, held_out, len(page.text))


def _report(model: LinearModel, held_out: list[_Example], chosen: _Chosen, cited: int) -> ReferenceReport:
    labels = [e.positive for e in held_out]
    classes = (sum(labels), len(labels) - sum(labels))
    if min(classes) < _MIN_HELD_OUT:
        raise DataError(
            f"{classes[0]:,} cited pages and {classes[1]:,} others are on held-out hosts, too few to say how "
            f"good the classifier is (each at least {_MIN_HELD_OUT})",
            hint="take pages of more hosts",
        )
    scores = [model.probability(e.vector) for e in held_out]
    bins = measures.reliability(scores, labels)

    def kept(of_class: bool) -> dict[str, float]:
        own = [score for score, label in zip(scores, labels, strict=True) if label == of_class]
        return {str(t): sum(score >= t for score in own) / len(own) for t in (0.25, 0.5)}

    return ReferenceReport(
        reference_urls=cited,
        pages=chosen.pages,
        positives=len(chosen.positives),
        negatives=len(chosen.negatives),
        held_out=classes,
        auc=measures.auc(scores, labels),
        auc_of_length=measures.auc([float(e.characters) for e in held_out], labels),
        calibration_error=measures.calibration_error(bins),
        kept_positives=kept(True),
        kept_negatives=kept(False),
        reliability=bins,
    )
