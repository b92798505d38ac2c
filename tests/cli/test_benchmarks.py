"""`criadero benchmarks` and `criadero samples`: what people and programs are shown."""

from __future__ import annotations

import json
from pathlib import Path


def test_the_list_names_every_benchmark_with_its_size_and_needs_no_network(program):
    outcome = program("benchmarks", "list")
    assert outcome.code == 0
    lines = {line.split()[0]: line for line in outcome.stdout.splitlines()}
    assert "14,042" not in lines["mmlu"]  # all its splits are fetched
    assert "15,858" in lines["mmlu"]
    assert "complete" in lines["gsm8k"]
    assert "100 of 817" in lines["truthfulqa_mc1"]
    assert "in no package" in lines["race_high"]


def test_the_list_for_programs_has_packages_with_hashes(program):
    outcome = program("benchmarks", "list", "--json")
    listed = json.loads(outcome.stdout)
    entries = {entry["name"]: entry for entry in listed["benchmarks"]}
    assert {name for name, entry in entries.items() if not entry["available"]} == {"race_middle", "race_high"}
    assert all(len(entry["package"]["sha256"]) == 64 for entry in entries.values() if entry["available"])
    assert (entries["mmlu"]["paper_table"], entries["mmlu"]["items"]) == ("Table 9", 14042)
    assert entries["race_high"]["items"] == 3498
    assert sum(entry.get("paper_table") is not None for entry in entries.values()) == 21


def test_an_unknown_benchmark_is_a_usage_error_with_a_hint(program, tmp_path: Path):
    outcome = program("benchmarks", "fetch", "squid", "--out", str(tmp_path / "out"))
    assert outcome.code == 2
    assert "there is no benchmark `squid`" in outcome.stderr
    assert "hint: criadero benchmarks list" in outcome.stderr


def test_an_unknown_source_of_the_open_corpus_is_a_usage_error(program, tmp_path: Path):
    outcome = program("samples", "fetch", "prose", "--out", str(tmp_path / "out"))
    assert outcome.code == 2
    assert "there is no source `prose`" in outcome.stderr


def test_a_corpus_without_a_ledger_cannot_be_reported_on(program, tmp_path: Path):
    (tmp_path / "corpus").mkdir()
    outcome = program("benchmarks", "overlap", str(tmp_path / "corpus"), "--benchmarks", str(tmp_path))
    assert outcome.code == 1
    assert "has no ledger" in outcome.stderr
