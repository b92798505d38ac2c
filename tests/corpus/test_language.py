"""Language identification with the packaged model: the rule of CCNet without its two quirks."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from criadero.corpus.document import Document, Drop
from criadero.corpus.engine.inline import run_inline
from criadero.corpus.engine.stage import Read, Split
from criadero.corpus.language import Identifier, LanguageConfig, make, packaged_model, stage
from criadero.errors import DataError

ENGLISH = "The committee met on Tuesday and decided to build the new bridge before the winter."
FRENCH = "Le comité s'est réuni mardi et a décidé de construire le nouveau pont avant l'hiver."


def identified_as(score: float):
    """The step with a model that always says English with this score."""

    class Fixed:
        def __call__(self, text: str) -> tuple[str, float]:
            return "en", score

    return Fixed()


def reader_of(*, texts: list[str]):
    return lambda split: (Document(str(n), text, "arxiv") for n, text in enumerate(texts))


def document(text: str) -> Document:
    return Document("d", text, "crawl")


def test_english_stays_and_french_goes():
    step = make(**stage().settings)
    kept = step(document(ENGLISH))
    assert kept.metadata["language"] == "en"
    assert float(kept.metadata["language_score"]) > 0.9
    dropped = step(document(FRENCH))
    assert (dropped.reason, dropped.detail) == ("language_unwanted", "fr")
    assert dropped.score > 0.9


def test_other_languages_can_be_wanted():
    step = make(**stage(LanguageConfig(wanted=("fr", "de"))).settings)
    assert step(document(FRENCH)).metadata["language"] == "fr"
    assert isinstance(step(document(ENGLISH)), Drop)


@pytest.mark.parametrize(("score", "kept"), [(0.495, False), (0.4999, False), (0.5, True)])
def test_the_score_is_not_rounded_before_it_is_compared(monkeypatch, score, kept):
    """CCNet rounds to two decimals first, so that 0.495 passes."""
    monkeypatch.setattr("criadero.corpus.language.Identifier", lambda path: identified_as(score))
    result = make(wanted=["en"], threshold=0.5, model="x")(document(ENGLISH))
    assert isinstance(result, Document) == kept
    if not kept:
        assert result == Drop("language_unclear", score=score, detail="en")


def test_bug_9_of_arxiv_the_model_is_not_loaded_again_for_each_document(monkeypatch):
    loaded = []
    monkeypatch.setattr(
        "criadero.corpus.language.Identifier", lambda path: loaded.append(path) or identified_as(0.9)
    )
    texts = [f"{ENGLISH} {number}" for number in range(20)]
    read = Read((Split("a", __file__),), reader_of, {"texts": texts})
    result = run_inline((read, stage()))
    assert len(result.documents) == 20
    assert loaded == [packaged_model()]


def test_words_at_line_ends_are_not_glued():
    """CCNet deletes newlines; a list of words then reads as one word."""
    identify = Identifier(packaged_model())
    words = ENGLISH.split()
    assert identify("\n".join(words)) == identify(" ".join(words))
    assert identify("\n".join(words)) != identify("".join(words))


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_text_crashes_it(text):
    result = STEP(document(text))
    assert isinstance(result, Drop) or result.text == text


def test_an_empty_text_and_a_word_of_megabytes_are_no_crash():
    assert isinstance(STEP(document("")), Drop)
    STEP(document("x" * 3_000_000))


def test_a_missing_model_and_a_file_that_is_none_are_said(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        stage(LanguageConfig(model=tmp_path / "none.bin"))
    other = tmp_path / "other.bin"
    other.write_bytes(b"not a model at all")
    with pytest.raises(DataError, match="no fastText model"):
        Identifier(Path(other))


STEP = make(**stage().settings)
