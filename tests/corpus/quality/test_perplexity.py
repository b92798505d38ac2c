"""Perplexity under a small trained model: CCNet's formula, its normalising, its buckets."""

from __future__ import annotations

import json
import lzma
import math
import shutil
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from criadero.corpus.document import Document, Drop
from criadero.corpus.ngram.model import NgramModel
from criadero.corpus.quality import cutoffs, train
from criadero.corpus.quality.perplexity import PerplexityConfig, Scorer, make, stage
from criadero.corpus.text_normal import scorable
from criadero.errors import DataError

SAMPLES = Path(__file__).parents[3] / "samples" / "raw" / "books"
SMALL = train.LanguageModelConfig(pieces=500)
SPAM = "buy cheap zzxq $$$ click99 qqq www.xyzzy.biz free!!! jkjk pills casino xxk " * 5


def texts() -> list[str]:
    with lzma.open(SAMPLES / "sherlock-holmes.jsonl.xz", "rt") as stream:
        stories = "\n".join(json.loads(line)["text"] for line in stream)
    return [stories[start : start + 2000] for start in range(0, 100_000, 2000)]


def document(text: str) -> Document:
    return Document("d", text, "crawl")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    train.train(lambda: texts()[:-5], folder, config=SMALL)
    scorer = Scorer(folder)
    cutoffs.calibrate(scorer.perplexities(texts()[:-5]), pages="test").save(folder)
    return folder


def test_the_formula_is_ccnets(model):
    """10 ** (-log10 p / (pieces + 1)), the document one line, pieces as words, the end counted once."""
    text = texts()[-1]
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model / "sentencepiece.model"))
    words = pieces.encode(scorable(text), out_type=str)
    ngram = NgramModel.open(model / "ngram.bin")
    log10 = ngram.log10_probability(ngram.ids(words))
    expected = 10 ** (-log10 / (len(words) + 1))
    assert Scorer(model).perplexity(text) == pytest.approx(expected, rel=1e-6)


def test_unseen_prose_of_the_author_scores_better_than_spam(model):
    scorer = Scorer(model)
    assert scorer.perplexity(texts()[-1]) * 3 < scorer.perplexity(SPAM)


def test_what_is_normalised_away_does_not_change_the_score(model):
    scorer = Scorer(model)
    text = "In the year 1878 I took my degree at the cafe - he said."
    assert scorer.perplexity(text) == scorer.perplexity(
        "  In the year 2024 I TOOK my degree at the café – he said.\n"
    )


def test_a_score_is_not_rounded(model):
    """CCNet rounds to one decimal before it compares."""
    perplexity = Scorer(model).perplexity(texts()[0])
    assert perplexity != round(perplexity, 1)


def test_pages_are_parted_by_the_cutoffs_beside_the_model(model):
    found = stage(PerplexityConfig(), model)
    step = make(**found.settings)
    results = [step(document(text)) for text in texts()]
    kept = [r for r in results if isinstance(r, Document)]
    assert {r.metadata["bucket"] for r in kept} == {"head", "middle"}
    bounds = cutoffs.load(model)
    assert all(float(r.metadata[found.score]) < bounds.middle for r in kept)
    dropped = step(document(SPAM))
    assert dropped.reason == "perplexity_tail"
    assert dropped.score > bounds.middle


def test_other_buckets_can_be_kept(model):
    step = make(**stage(PerplexityConfig(keep=("tail",)), model).settings)
    assert step(document(SPAM)).metadata["bucket"] == "tail"
    assert step(document(texts()[0])).reason.startswith("perplexity_")


def test_the_key_of_the_stage_depends_on_model_and_cutoffs(model, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    found = stage(PerplexityConfig(), copy)
    assert {p.name for p in found.files} == {"sentencepiece.model", "ngram.bin"}
    cutoffs.Cutoffs(1, 2, 1, "other").save(copy)
    assert stage(PerplexityConfig(), copy).settings != found.settings


def test_a_folder_without_cutoffs_or_model_is_refused(model, tmp_path):
    with pytest.raises(DataError, match="cutoffs"):
        stage(PerplexityConfig(), tmp_path)
    cutoffs.Cutoffs(1, 2, 1, "").save(tmp_path)
    with pytest.raises(DataError, match="no language model"):
        stage(PerplexityConfig(), tmp_path)
    (tmp_path / "ngram.bin").write_bytes(b"x")
    (tmp_path / "sentencepiece.model").write_bytes(b"not a model")
    with pytest.raises(DataError, match="no SentencePiece model"):
        Scorer(tmp_path)


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_text_crashes_it(model, text):
    result = make(**stage(PerplexityConfig(), model).settings)(document(text))
    value = result.score if isinstance(result, Drop) else float(result.metadata["perplexity"])
    assert math.isfinite(value)
    assert value > 0


def test_training_again_gives_the_same_bytes(model, tmp_path):
    train.train(lambda: texts()[:-5], tmp_path, config=SMALL)
    for name in ("sentencepiece.model", "ngram.bin"):
        assert (tmp_path / name).read_bytes() == (model / name).read_bytes()


def test_no_text_and_hardly_any_text(tmp_path):
    with pytest.raises(DataError):
        train.train(list, tmp_path)
    train.train(lambda: ["a b c"], tmp_path, config=SMALL)
    assert Scorer(tmp_path).perplexity("a b") > 0
