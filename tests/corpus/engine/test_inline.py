"""A recipe in this process: it equals a naive reference, and the ledger accounts for all of it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import engine_recipes
from criadero.corpus.document import BadRecord, Document, Drop
from criadero.corpus.engine.config import EngineConfig
from criadero.corpus.engine.executor import Inline
from criadero.corpus.engine.inline import run_inline
from criadero.corpus.engine.run import SourceResult, run_source
from criadero.corpus.engine.stage import Each, Exchange, Read, Recipe, Split
from criadero.errors import DataError, ResourceError, StoppedEarly

SPLITS = engine_recipes.splits


def naive(documents: list[Document]) -> list[Document]:
    """The recipe of `engine_recipes.recipe` as nested loops."""
    seen_lines: set[str] = set()
    left = []
    for document in documents:
        kept = []
        for line in (document.text + "!").split("\n"):
            if line not in seen_lines:
                kept.append(line)
            seen_lines.add(line)
        text = "\n".join(kept)
        if kept and len(text) >= 20:
            left.append(document.with_text(text).with_metadata(length=str(float(len(text)))))
    seen_texts: set[str] = set()
    result = []
    for document in left:
        if document.text not in seen_texts:
            result.append(document)
        seen_texts.add(document.text)
    return result


def read_all(recipe: Recipe) -> list[Document | BadRecord]:
    reader = recipe[0].make(**recipe[0].settings)
    return [record for split in recipe[0].splits for record in reader(split)]


def run(recipe: Recipe, out: Path, **settings) -> SourceResult:
    return run_source("made", recipe, out, executor=Inline(), settings=EngineConfig(**settings))


def test_a_recipe_with_two_exchanges_equals_nested_loops():
    recipe = engine_recipes.recipe(reader={"documents": 60})
    assert run_inline(recipe).documents == naive(read_all(recipe))


def test_equal_documents_behind_the_first_are_dropped_with_the_id_that_combine_looked_up():
    recipe = (Read(SPLITS(4), engine_recipes.make_reader), Exchange("exact", engine_recipes.ExactDedup))
    everything = read_all(recipe)
    firsts: dict[str, str] = {}
    expected = {d.id: firsts.setdefault(d.text, d.id) for d in everything}
    result = run_inline(recipe)
    assert [d.id for d in result.documents] == [key for key, value in expected.items() if key == value]
    duplicates = {row.id: row.detail for row in result.ledger if row.outcome == "dropped"}
    assert duplicates == {key: value for key, value in expected.items() if key != value}


def test_what_came_in_is_what_came_out_and_what_was_left_out(tmp_path: Path):
    recipe = engine_recipes.recipe(reader={"bad_every": 7}, harm={"s1:3": "raise"})
    result = run(recipe, tmp_path)
    table = pq.read_table(tmp_path / "ledger" / "made").to_pylist()
    first = [row for row in table if row["stage_index"] == 0]
    left_out = Counter(row["reason"] for row in table if row["outcome"] in {"dropped", "bad"})
    assert len(first) == result.documents_in == len(read_all(recipe))
    assert result.documents == result.documents_in - sum(left_out.values())
    assert left_out == result.left_out
    assert left_out["malformed"] == 28
    assert left_out["error"] == 1


def test_the_ledger_has_a_row_for_each_stage_a_document_reached():
    recipe = (
        Read(SPLITS(1), engine_recipes.make_reader, {"documents": 1}),
        Each("harmful", engine_recipes.make_harmful, {"harm": {}}),
        Each("short", engine_recipes.make_short, {"least": 5}, score="length"),
        Each("never", engine_recipes.make_short, {"least": 10_000, "reason": "brief"}),
        Each("unreached", engine_recipes.make_identity),
    )
    rows = run_inline(recipe, source="made").ledger
    length = len(engine_recipes.text_of(0))
    assert [(r.stage, r.stage_index, r.outcome, r.reason, r.score) for r in rows] == [
        ("read", 0, "kept", "", None),
        ("harmful", 1, "edited", "", None),
        ("short", 2, "kept", "", length + 1),
        ("never", 3, "dropped", "brief", length + 1),
    ]
    assert [(r.characters_in, r.characters_out) for r in rows] == [
        (length, length),
        (length, length + 1),
        (length + 1, length + 1),
        (length + 1, 0),
    ]
    assert {(r.source, r.split, r.id) for r in rows} == {("made", 0, "s0:0")}


def make_list_reader(*, records: list[list[str]]):
    def read(split):
        for identity, text in records:
            yield Document(identity, text, "made") if text is not None else BadRecord(identity, "bad")

    return read


def make_strange(*, kind: str):
    results = {
        "none": lambda d: None,
        "surrogate": lambda d: d.with_text("half \ud800"),
        "metadata": lambda d: d.with_metadata(n=1),
        "bad metadata": lambda d: d.with_metadata(n="\udc00"),
        "score": lambda d: Drop("odd", score="many"),
        "missing score": lambda d: d,
    }
    return results[kind]


@pytest.mark.parametrize("kind", ["none", "surrogate", "metadata", "bad metadata", "score", "missing score"])
def test_a_stage_that_returns_what_it_must_not_costs_the_document(kind: str, tmp_path: Path):
    score = "no such key" if kind == "missing score" else None
    recipe = (
        Read(SPLITS(1), engine_recipes.make_reader, {"documents": 2}),
        Each("strange", make_strange, {"kind": kind}, score=score),
    )
    result = run(recipe, tmp_path)
    assert result.left_out == {"error": 2}
    assert result.documents == 0
    table = pq.read_table(tmp_path / "ledger" / "made").to_pylist()
    assert [row["outcome"] for row in table if row["stage"] == "strange"] == ["dropped"] * 2


@settings(max_examples=25)
@given(st.lists(st.tuples(st.text(), st.none() | st.text(st.characters())), max_size=8))
def test_any_text_comes_back_or_is_accounted_for(records: list[tuple[str, str | None]]):
    recipe = (Read(SPLITS(1), make_list_reader, {"records": [list(record) for record in records]}),)
    result = run_inline(recipe)
    expected = [Document(i, t, "made") for i, t in records if t is not None]
    assert result.documents == expected
    assert len(result.ledger) == len(records)


def test_a_lone_surrogate_from_a_reader_is_set_aside_and_named_in_the_ledger(tmp_path: Path):
    records = [["a\ud800", "x"], ["b", "y\udfff"], ["c", "z"], ["\udcff@9", None]]
    result = run((Read(SPLITS(1), make_list_reader, {"records": records}),), tmp_path)
    assert result.documents == 1
    assert result.documents_in == 4
    table = pq.read_table(tmp_path / "ledger" / "made").to_pylist()
    assert [(row["id"], row["outcome"]) for row in table] == [
        ("a\\ud800", "dropped"),
        ("b", "dropped"),
        ("c", "kept"),
        ("\\udcff@9", "bad"),
    ]


def test_more_failures_than_allowed_are_an_error_that_names_the_exception(tmp_path: Path):
    harm = {f"s{split}:{number}": "raise" for split in range(4) for number in range(4)}
    recipe = engine_recipes.recipe(harm=harm)
    with pytest.raises(DataError, match="RuntimeError: made up"):
        run(recipe, tmp_path, max_quarantined=10)
    assert run(recipe, tmp_path, max_quarantined=16).left_out["error"] == 16
    lines = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert {line["id"] for line in lines} == set(harm)
    assert lines[0]["begins"] == engine_recipes.text_of(0)[:100]


@pytest.mark.parametrize("fault", [{"harm": {"s0:0": "raise"}}, {"reader": {"harm": "raise", "at": 3}}])
def test_run_inline_names_what_a_stage_or_reader_raises(fault: dict):
    with pytest.raises(DataError, match=r"RuntimeError: made up \(engine_recipes.py:\d+\)"):
        run_inline(engine_recipes.recipe(**fault))


def test_what_ends_a_line_elsewhere_does_not_in_the_quarantine(tmp_path: Path):
    records = [[name, f"{name}\u2028\x85 text"] for name in ("a", "b")]
    for source in ("one", "two"):
        harmful = Each("harmful", engine_recipes.make_harmful, {"harm": {"a": "raise"}})
        recipe = (Read(SPLITS(1), make_list_reader, {"records": records}), harmful)
        run_source(source, recipe, tmp_path, executor=Inline())
    lines = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_bytes().splitlines()]
    assert [(line["source"], line["begins"]) for line in lines] == [
        ("one", "a\u2028\x85 text"),
        ("two", "a\u2028\x85 text"),
    ]


def test_asking_to_stop_ends_the_run_and_the_next_one_goes_on(tmp_path: Path):
    recipe = engine_recipes.recipe()
    asked = iter(range(1000))
    with pytest.raises(StoppedEarly):
        run_source("made", recipe, tmp_path, executor=Inline(), stop=lambda: next(asked) > 5)
    assert not (tmp_path / "documents" / "made").exists()
    assert run(recipe, tmp_path).documents == len(naive(read_all(recipe)))


@pytest.mark.parametrize(
    "recipe",
    [
        (),
        (Each("a", engine_recipes.make_identity),),
        (Read(SPLITS(1), engine_recipes.make_reader), Each("read", engine_recipes.make_identity)),
        (Read(SPLITS(1) + SPLITS(1), engine_recipes.make_reader),),
        (Read((Split("nowhere", ""),), engine_recipes.make_reader),),
        (Read(SPLITS(1), lambda: None),),
        (Read(SPLITS(1), engine_recipes.make_reader, {"documents": {1, 2}}),),
    ],
    ids=["empty", "no reader", "names twice", "splits twice", "no path", "a lambda", "no JSON"],
)
def test_a_recipe_that_cannot_be_run_is_refused(recipe: Recipe, tmp_path: Path):
    with pytest.raises(DataError):
        run(recipe, tmp_path)


def test_a_source_must_be_a_file_name(tmp_path: Path):
    with pytest.raises(DataError, match="names no source"):
        run_source("../x", engine_recipes.recipe(), tmp_path, executor=Inline())


def test_too_little_memory_for_the_workers_is_refused(tmp_path: Path):
    many = Inline()
    many.workers = 64
    with pytest.raises(ResourceError, match="64 workers"):
        run_source("made", engine_recipes.recipe(), tmp_path, executor=many)


def test_progress_ends_with_every_split_done_and_the_reasons(tmp_path: Path):
    shown = []
    recipe = engine_recipes.recipe(reader={"bad_every": 5})
    run_source("made", recipe, tmp_path, executor=Inline(), progress=shown.append)
    assert (shown[-1].splits_done, shown[-1].splits_total) == (4, 4)
    assert shown[-1].reasons["malformed"] == 40
    assert {p.stage for p in shown} >= {"read + harmful + lines", "lines: decide", "exact: combine"}
