"""Decontamination: against a naive search, and at the edges of its rules."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from criadero.corpus.decontaminate import DecontaminationConfig, make, markdown, report, stage
from criadero.corpus.document import Document, Drop
from criadero.corpus.engine.inline import run_inline
from criadero.corpus.engine.stage import Read, Split
from criadero.corpus.shingles import words
from criadero.errors import ConfigError, DataError
from criadero.files import write_json

THIRTEEN = "one two three four five six seven eight nine ten eleven twelve thirteen"
EIGHT = "Which city is the capital of the Netherlands?"
SEVEN = "what is the capital of the Netherlands"


def benchmarks(folder: Path, **items: list[str]) -> Path:
    """A folder as `criadero benchmarks fetch` makes it, one text per item."""
    folder.mkdir()
    entries = [{"name": name, "items": {"test": len(texts)}} for name, texts in items.items()]
    manifest = {"format": "criadero-benchmarks", "version": 1, "benchmarks": entries}
    write_json(folder / "manifest.json", manifest)
    for name, texts in items.items():
        lines = [json.dumps({"id": f"test/{i}", "texts": [t], "item": {}}) for i, t in enumerate(texts)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def check(text: str, folder: Path, **settings: object) -> Document | Drop:
    return make(benchmarks=folder, **settings)(Document("d", text, "web"))


@pytest.fixture
def quiz(tmp_path: Path) -> Path:
    return benchmarks(
        tmp_path / "benchmarks", numbers=[f"{THIRTEEN} fourteen fifteen"], capitals=[EIGHT, SEVEN]
    )


def test_thirteen_shared_words_are_contamination_whatever_case_and_punctuation(quiz: Path):
    dropped = check(f"Before. {THIRTEEN.upper().replace(' ', ' -- ')}! After.", quiz)
    assert dropped == Drop("contaminated", score=13, detail="numbers:test/0")


def test_twelve_shared_words_of_a_longer_item_are_none(quiz: Path):
    twelve = THIRTEEN.rpartition(" ")[0]
    assert isinstance(check(f"zero {twelve} 13", quiz), Document)


def test_all_shared_words_count_once(quiz: Path):
    dropped = check(f"{THIRTEEN} fourteen fifteen sixteen", quiz)
    assert isinstance(dropped, Drop)
    assert dropped.score == 15


def test_an_item_of_eight_words_counts_only_whole_and_a_shorter_one_never(quiz: Path):
    assert check(f"Q: {EIGHT} A: Amsterdam", quiz) == Drop("contaminated", score=8, detail="capitals:test/0")
    assert isinstance(check("which city is the capital of the nether lands", quiz), Document)
    assert isinstance(check(f"I ask: {SEVEN}?", quiz), Document)


def test_an_item_of_eight_to_twelve_words_needs_its_last_word_too(tmp_path: Path):
    folder = benchmarks(tmp_path / "b", tens=["a b c d e f g h i j"])
    assert isinstance(check("a b c d e f g h i x", folder), Document)
    assert isinstance(check("a b c d e f g h i", folder), Document)
    assert check("x a b c d e f g h i j", folder) == Drop("contaminated", score=10, detail="tens:test/0")


def test_a_template_that_more_than_ten_items_share_is_ignored(tmp_path: Path):
    folder = benchmarks(
        tmp_path / "b",
        many=[f"{THIRTEEN} item number {i} of this very long list" for i in range(11)],
        few=[f"{THIRTEEN[::-1]} item number {i}" for i in range(10)],
    )
    assert isinstance(check(THIRTEEN, folder), Document)
    dropped = check(THIRTEEN[::-1], folder)
    assert isinstance(dropped, Drop)
    assert len(dropped.detail.split(", ")) == 10


def test_a_collision_of_hashes_accuses_nobody(quiz: Path, monkeypatch: pytest.MonkeyPatch):
    from criadero.corpus import overlap_index

    def all_equal(word_hashes, n):
        return np.zeros(max(0, len(word_hashes) - n + 1), np.uint64)

    monkeypatch.setattr(overlap_index, "ngram_hashes", all_equal)
    assert isinstance(check(" ".join(f"w{i}" for i in range(40)), quiz), Document)
    assert isinstance(check(THIRTEEN, quiz), Drop)


def test_only_the_benchmarks_named_are_looked_for(quiz: Path):
    assert isinstance(check(THIRTEEN, quiz, names=("capitals",)), Document)
    with pytest.raises(DataError, match="has no benchmark `numbres`"):
        stage(DecontaminationConfig(benchmarks=quiz, names=("numbres",)))


def test_a_folder_without_benchmarks_is_an_error_before_anything_runs(tmp_path: Path):
    with pytest.raises(DataError, match="does not exist"):
        stage(DecontaminationConfig(benchmarks=tmp_path / "none"))


def test_the_files_are_part_of_the_stage_so_that_other_items_mean_another_corpus(quiz: Path):
    found = stage(DecontaminationConfig(benchmarks=quiz))
    assert {path.name for path in found.files} == {"numbers.jsonl", "capitals.jsonl"}
    assert json.loads(json.dumps(dict(found.settings))) == dict(found.settings)


def test_random_texts_are_judged_as_a_naive_search_judges_them(tmp_path: Path):
    draw = random.Random(3)
    items = [" ".join(draw.choices("ab", k=draw.randint(5, 30))) for _ in range(8)]
    function = make(benchmarks=benchmarks(tmp_path / "b", letters=items))
    outcomes = set()
    for _ in range(300):
        text = " ".join(draw.choices("ab", k=draw.randint(0, 60)))
        found = function(Document("d", text, "s"))
        named = found.detail.split(", ") if isinstance(found, Drop) else []
        assert sorted(named) == naive_overlaps(text, items)
        outcomes.add(bool(named))
    assert outcomes == {True, False}


def naive_overlaps(text: str, items: list[str]) -> list[str]:
    found = []
    for number, item in enumerate(items):
        letters = item.split()
        runs = [letters[i : i + 13] for i in range(len(letters) - 12)] or [letters]
        if len(letters) >= 8 and any(f" {' '.join(run)} " in f" {text} " for run in runs):
            found.append(f"letters:test/{number}")
    return found


@given(st.text(max_size=300))
def test_no_text_is_too_strange(tmp_path_factory: pytest.TempPathFactory, text: str):
    folder = tmp_path_factory.getbasetemp() / "strange"
    if not folder.exists():
        benchmarks(folder, numbers=[THIRTEEN])
    assert check(text, folder) == Document("d", text, "web")


def test_words_are_those_between_anything_that_is_no_letter_or_digit():
    text = "It's 12,5 %: \u201cwell-known\u201d _etc_."
    assert words(text) == re.sub(r"[^a-z0-9]+", " ", text.lower()).split()


def one_document(_split: Split):
    yield Document("a", f"so {THIRTEEN}", "web")
    yield Document("b", "clean", "web")
    yield Document("c", f"{THIRTEEN} and {EIGHT}", "web")


def make_reader():
    return one_document


def test_the_report_counts_items_and_documents_per_benchmark(quiz: Path, tmp_path: Path):
    config = DecontaminationConfig(benchmarks=quiz)
    result = run_inline((Read((Split("s", str(quiz)),), make_reader), stage(config)))
    assert [document.id for document in result.documents] == ["b"]
    corpus = tmp_path / "corpus"
    write_ledger(corpus, result.ledger)
    numbers, capitals = report(corpus, config)
    assert (numbers.items_found, numbers.documents_dropped, numbers.too_short) == (1, 2, 0)
    assert (capitals.items, capitals.items_found, capitals.documents_dropped) == (2, 1, 1)
    assert capitals.too_short == 1
    assert "| capitals | 2 | 1 | 1 | 1 |" in markdown([numbers, capitals])


def write_ledger(corpus: Path, rows) -> None:
    from dataclasses import asdict

    import pyarrow as pa

    from criadero.corpus.ledger import SCHEMA

    folder = corpus / "ledger" / "web"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([asdict(row) for row in rows], SCHEMA), folder / "part.parquet")


def test_min_words_above_ngram_is_a_fault_of_the_config(quiz: Path):
    from criadero import config

    with pytest.raises(ConfigError, match="min_words is 20, more than ngram, 13"):
        config.validate(DecontaminationConfig, {"benchmarks": str(quiz), "min_words": 20}, where="x")
