"""The classifier of pages like Wikipedia's references: its examples, its numbers, bugs it must not have."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from criadero.corpus.document import Document, Drop
from criadero.corpus.quality import linear
from criadero.corpus.quality.references import ReferenceConfig, make, stage, train
from criadero.errors import DataError

GOOD = [
    "history",
    "university",
    "published",
    "research",
    "analysis",
    "evidence",
    "century",
    "government",
    "journal",
    "study",
]
POOR = ["cheap", "click", "shipping", "discount", "login", "cart", "subscribe", "deal", "price", "offer"]
PLAIN = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "a",
    "is",
    "that",
    "for",
    "it",
    "as",
    "with",
    "was",
    "on",
    "by",
    "at",
    "from",
    "this",
    "which",
    "or",
]
CONFIG = ReferenceConfig(min_characters=300, min_positives=50, bits=14, epochs=10)


def page(number: int, own: list[str], *, words: int, rng: random.Random) -> Document:
    text = " ".join(rng.choice(own if rng.random() < 0.2 else PLAIN) for _ in range(words))
    url = f"https://www.host{number % 97}.org/page/{number}?utm_source=x"
    return Document(f"p{number}", text, "crawl", {"url": url})


def corpus(count: int = 600, *, good_words: int = 120, poor_words: int = 120):
    rng = random.Random(1)
    pages = [
        page(n, GOOD if n % 2 else POOR, words=good_words if n % 2 else poor_words, rng=rng)
        for n in range(count)
    ]
    urls = [f"http://host{n % 97}.org/page/{n}/" for n in range(count) if n % 2]
    return pages, urls


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    pages, urls = corpus()
    return folder, train(lambda: pages, urls, folder, config=CONFIG)


def test_cited_pages_are_matched_and_told_apart(trained):
    _, report = trained
    assert (report.positives, report.negatives, report.pages) == (300, 300, 600)
    assert report.auc > 0.95
    assert report.calibration_error < 0.35
    assert sum(b.texts for b in report.reliability) == sum(report.held_out)
    assert report.kept_positives["0.5"] > 0.9
    assert report.kept_negatives["0.5"] < 0.1


def test_the_report_is_written_beside_the_model(trained):
    folder, report = trained
    written = json.loads((folder / "report.json").read_text())
    assert written["auc"] == report.auc
    assert written["config"]["threshold"] == 0.5
    assert {"low", "high", "texts", "mean_score", "share_positive"} == set(written["reliability"][0])


def test_the_step_keeps_and_drops_with_the_probability(trained):
    folder, _ = trained
    step_stage = stage(CONFIG, folder)
    step = make(**step_stage.settings)
    pages, _ = corpus(10)
    kept, dropped = step(pages[1]), step(pages[0])
    assert float(kept.metadata[step_stage.score]) >= 0.5
    assert dropped.reason == "unlike_references"
    assert dropped.score < 0.5


def test_a_threshold_of_a_quarter_keeps_more(trained):
    folder, _ = trained
    rng = random.Random(3)
    mixed = [page(n, GOOD + POOR, words=60, rng=rng) for n in range(200)]
    counts = []
    for threshold in (0.25, 0.5):
        step = make(**stage(CONFIG.model_copy(update={"threshold": threshold}), folder).settings)
        counts.append(sum(isinstance(step(p), Document) for p in mixed))
    assert counts[0] > counts[1]


def test_it_is_no_length_detector_redpajama_62(tmp_path):
    """Negatives without a least length made RedPajama's classifier score a short good paragraph 0.003."""
    pages, urls = corpus(good_words=400, poor_words=400)
    rng = random.Random(2)
    short = [page(5000 + n, POOR, words=8, rng=rng) for n in range(2000)]
    short += [page(9001 + 2 * n, GOOD, words=8, rng=rng) for n in range(200)]
    urls += [p.metadata["url"] for p in short[2000:]]
    report = train(lambda: [*short, *pages], urls, tmp_path, config=CONFIG)
    assert report.pages == 600  # the short ones of either class are no examples
    step = make(model=str(tmp_path / "classifier.safetensors"), threshold=0.0)
    for words in (20, 100, 400, 2000):
        scores = [
            float(step(page(1, GOOD, words=words, rng=rng)).metadata["reference_score"]) for _ in "abcd"
        ]
        assert min(scores) > 0.5, words
        scores = [
            float(step(page(1, POOR, words=words, rng=rng)).metadata["reference_score"]) for _ in "abcd"
        ]
        assert max(scores) < 0.5, words


def test_length_alone_is_reported(tmp_path):
    pages, urls = corpus(good_words=300, poor_words=100)
    report = train(lambda: pages, urls, tmp_path, config=CONFIG)
    assert report.auc_of_length > 0.99


def test_the_same_text_is_one_example_however_often_it_is_cited(tmp_path):
    """RedPajama tests `digest in unique` but stores a constant, so nothing is ever a duplicate."""
    pages, urls = corpus()
    copies = [replace(pages[1], id=f"copy{n}", metadata={"url": f"http://c{n}.org/"}) for n in range(500)]
    urls += [copy.metadata["url"] for copy in copies]
    report = train(lambda: [*pages, *copies], urls, tmp_path, config=CONFIG)
    assert (report.positives, report.pages) == (300, 600)


def test_a_cited_text_is_never_a_negative_under_another_address(tmp_path):
    pages, urls = corpus()
    mirror = [replace(p, id=f"m{p.id}", metadata={"url": "http://mirror.org/" + p.id}) for p in pages[1::2]]
    report = train(lambda: [*mirror, *pages], urls, tmp_path, config=CONFIG)
    assert (report.positives, report.pages) == (300, 600)


def test_too_few_references_are_said_with_the_numbers(tmp_path):
    pages, urls = corpus()
    with pytest.raises(DataError, match=r"of 600 pages .* 20 are among the 20 addresses .* needed are 50"):
        train(lambda: pages, urls[:20], tmp_path, config=CONFIG)
    with pytest.raises(DataError, match=r"of 0 pages"):
        train(list, [], tmp_path, config=CONFIG)


def test_the_same_pages_give_the_same_bytes(trained, tmp_path):
    folder, _ = trained
    pages, urls = corpus()
    train(lambda: pages, reversed(urls), tmp_path, config=CONFIG)
    for name in ("classifier.safetensors", "report.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_a_damaged_model_is_refused(trained, tmp_path):
    folder, _ = trained
    data = (folder / "classifier.safetensors").read_bytes()
    for damaged in (b"", data[:100], data[:-1], b"\x80\x04pickle"):
        (tmp_path / "classifier.safetensors").write_bytes(damaged)
        with pytest.raises(DataError, match="no classifier"):
            stage(CONFIG, tmp_path)
    with pytest.raises(DataError, match="no classifier"):
        stage(CONFIG, tmp_path / "nowhere")


def test_training_reaches_the_optimum_of_a_dense_reference():
    """The loss after many epochs is near that of plain gradient descent on the same vectors."""
    rng = np.random.default_rng(0)
    features = linear.Features(bits=8, pairs=False)
    texts = [" ".join(rng.choice(GOOD + POOR + PLAIN, 20)) for _ in range(120)]
    labels = [sum(w in GOOD for w in t.split()) > sum(w in POOR for w in t.split()) for t in texts]
    vectors = [features(t) for t in texts]
    dense = np.zeros((len(texts), 257))
    for row, (places, values) in zip(dense, vectors, strict=True):
        row[places], row[256] = values, 1.0
    weights, truth = np.zeros(257), np.asarray(labels, float)
    for _ in range(3000):
        errors = 1 / (1 + np.exp(-dense @ weights)) - truth
        weights -= 2.0 * dense.T @ errors / len(texts)

    def loss(probabilities):
        p = np.clip(probabilities, 1e-9, 1 - 1e-9)
        return float(-np.mean(truth * np.log(p) + (1 - truth) * np.log(1 - p)))

    model = linear.fit(vectors, labels, bits=8, pairs=False, epochs=400, seed=0)
    assert loss(np.array([model.probability(v) for v in vectors])) < 1.5 * loss(
        1 / (1 + np.exp(-dense @ weights))
    )


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_text_crashes_it(trained, text):
    folder, _ = trained
    result = make(**stage(CONFIG, folder).settings)(Document("d", text, "crawl"))
    assert isinstance(result, Document | Drop)
    if isinstance(result, Drop):
        assert 0 <= result.score < 0.5
