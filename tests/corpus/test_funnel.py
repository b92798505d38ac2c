"""The funnel adds up to what a ledger worked by hand says, over all its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.ledger_files import LATER, WORKED, Row, write_ledger
from criadero.corpus.explain import explain
from criadero.corpus.funnel import StageFunnel, funnel_values, read_funnel
from criadero.errors import DataError


def test_the_funnel_of_a_ledger_worked_by_hand(tmp_path: Path) -> None:
    write_ledger(tmp_path, "wiki", WORKED)
    write_ledger(tmp_path, "wiki", LATER, file="01-00000")
    (funnel,) = read_funnel(tmp_path)
    assert funnel.stages == (
        StageFunnel("read", 5, 4, 200, 200, 0, {"not_json": 1}),
        StageFunnel("clean", 4, 2, 200, 130, 1, {"quarantined": 1, "too_short": 1}),
        StageFunnel("dedup", 2, 1, 130, 80, 0, {"too_short": 1}),
    )
    dropped = {"too_short": 2, "not_json": 1, "quarantined": 1}
    assert json.loads(json.dumps(funnel_values([funnel]))) == {
        "sources": {
            "wiki": {
                "documents_in": 5,
                "documents_out": 1,
                "characters_in": 200,
                "characters_out": 80,
                "dropped": dropped,
            }
        }
    }


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.sampled_from(["kept", "edited", "x", "y"]), min_size=3, max_size=3), max_size=20))
def test_what_came_in_is_what_came_out_and_what_was_dropped(tmp_path_factory, fates: list[list[str]]) -> None:
    out = tmp_path_factory.mktemp("out")
    rows: list[Row] = []
    survivors = 0
    for number, fate in enumerate(fates):
        for index, outcome in enumerate(fate):
            lost = outcome in {"x", "y"}
            said = ("bad" if index == 0 else "dropped") if lost else outcome
            rows.append((f"s{index}", index, str(number), said, outcome if lost else "", 7, 0 if lost else 7))
            if lost:
                break
        else:
            survivors += 1
    write_ledger(out, "any", rows)
    (funnel,) = read_funnel(out)
    assert funnel.documents_in == len(fates)
    assert funnel.documents_out == survivors
    assert funnel.documents_in == funnel.documents_out + sum(funnel.dropped.values())
    assert funnel.characters_out == 7 * survivors


def test_a_ledger_that_does_not_add_up_is_refused(tmp_path: Path) -> None:
    write_ledger(tmp_path, "wiki", WORKED)
    write_ledger(tmp_path, "wiki", LATER[:1], file="01-00000")
    with pytest.raises(DataError, match="`clean` let 2 documents through, `dedup` met 1"):
        read_funnel(tmp_path)


def test_what_a_killed_build_left_half_written_is_no_source(tmp_path: Path) -> None:
    for name in ("wiki", "wiki.tmp-4711", "wiki.old.tmp-4711"):
        write_ledger(tmp_path, name, WORKED)
    assert [funnel.source for funnel in read_funnel(tmp_path)] == ["wiki"]
    (story,) = explain(tmp_path, "a")
    assert len(story.rows) == 2


def test_a_source_without_documents_and_a_folder_without_ledger(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no ledger"):
        read_funnel(tmp_path)
    write_ledger(tmp_path, "empty", [])
    (tmp_path / "ledger/nothing").mkdir()
    assert [(f.source, f.documents_in, f.documents_out, f.dropped) for f in read_funnel(tmp_path)] == [
        ("empty", 0, 0, {}),
        ("nothing", 0, 0, {}),
    ]
