"""The recipe for people's own files: how they are cut, named and read, whatever is in them."""

from __future__ import annotations

import gzip
import json
import resource
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from criadero.corpus.document import BadRecord, Document
from criadero.corpus.engine.inline import run_inline
from criadero.corpus.engine.stage import Read
from criadero.corpus.sources import plain
from criadero.errors import DataError


def read_stage(*inputs: Path, **config: str) -> Read:
    (stage,) = plain.stages(plain.TextConfig(**config), source="mine", inputs=inputs)
    assert isinstance(stage, Read)
    return stage


def documents(*inputs: Path, **config: str) -> list[Document]:
    return run_inline((read_stage(*inputs, **config),)).documents


def records(*inputs: Path) -> list[Document | BadRecord]:
    stage = read_stage(*inputs)
    reader = stage.make(**stage.settings)
    return [record for split in stage.splits for record in reader(split)]


@settings(max_examples=30, deadline=None)
@given(
    texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=40), max_size=30),
    size=st.integers(7, 300),
    last=st.booleans(),
)
def test_a_cut_file_gives_every_line_once_wherever_it_is_cut(tmp_path_factory, texts, size, last) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.jsonl"
    content = "\n".join(json.dumps({"text": text}) for text in texts) + ("\n" if last else "")
    path.write_text(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain, "SPLIT_BYTES", size)
        stage = read_stage(path)
        found = run_inline((stage,)).documents
    not_empty = [text for text in texts if text.strip()]
    assert [document.text for document in found] == not_empty
    assert len({document.id for document in found}) == len(not_empty)
    assert found == documents(path), "the ids do not depend on the cuts"
    assert len(stage.splits) == max(1, -(-len(content) // size))


def test_small_files_of_a_folder_share_a_task(tmp_path, monkeypatch) -> None:
    for name in ("a/1.txt", "a/2.txt", "a/3.txt", "b/4.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(plain, "SPLIT_BYTES", 15)
    stage = read_stage(tmp_path)
    assert [len(split.parts["files"]) for split in stage.splits] == [2, 1, 1]
    read = [[str(Path(path).relative_to(tmp_path)) for path in split.reads] for split in stage.splits]
    assert read == [["a/1.txt", "a/2.txt"], ["a/3.txt"], ["b/4.txt"]]
    assert [d.text for d in documents(tmp_path)] == ["a/1.txt", "a/2.txt", "a/3.txt", "b/4.txt"]


def test_an_empty_text_is_a_bad_record(tmp_path) -> None:
    (tmp_path / "a.txt").write_text(" \n")
    (tmp_path / "b.jsonl").write_text('{"text": ""}\n{"text": "x"}\n')
    assert [(r.id, getattr(r, "reason", "")) for r in records(tmp_path / "a.txt", tmp_path / "b.jsonl")] == [
        ("a.txt", "empty"),
        ("b.jsonl@0", "empty"),
        ("b.jsonl@13", ""),
    ]


def test_a_line_without_end_costs_its_splits_no_more_than_their_own_bytes(tmp_path, monkeypatch) -> None:
    path = tmp_path / "endless.jsonl"
    path.write_bytes(b'{"text": "first"}\n' + b"x" * 5_000 + b'\n{"text": "last"}\n')
    monkeypatch.setattr(plain, "SPLIT_BYTES", 100)
    monkeypatch.setattr(plain, "MAX_RECORD_BYTES", 200)
    found = records(path)
    assert [type(record) for record in found] == [Document, BadRecord, Document]
    assert found[1] == BadRecord(
        "endless.jsonl@18", "too_long", "longer than the 200 bytes a record may have"
    )


def test_parquet_is_cut_by_row_groups_and_keeps_its_order(tmp_path, monkeypatch) -> None:
    texts = [f"text {n} " * 20 for n in range(100)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=10)
    whole = documents(tmp_path / "a.parquet")
    assert [(d.id, d.text) for d in whole] == [(f"a.parquet:{n + 1}", t) for n, t in enumerate(texts)]
    monkeypatch.setattr(plain, "SPLIT_BYTES", 500)
    assert len(read_stage(tmp_path / "a.parquet").splits) > 3
    assert documents(tmp_path / "a.parquet") == whole


def test_files_of_one_name_keep_apart_and_a_file_named_twice_is_read_once(tmp_path) -> None:
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "part.txt").write_text(folder)
    inputs = [tmp_path / "a/part.txt", tmp_path / "b", tmp_path / "a"]
    assert [(d.id, d.text) for d in documents(*inputs)] == [("a/part.txt", "a"), ("b/part.txt", "b")]


def test_ids_of_records_are_kept_or_replaced_by_their_place(tmp_path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1, "text": "x", "lang": "en"}\n{"id": 1, "text": "y"}\n')
    assert [d.id for d in documents(tmp_path / "a.jsonl")] == ["1", "1"]
    placed = documents(tmp_path / "a.jsonl", ids="place")
    assert [d.id for d in placed] == ["a.jsonl@0", "a.jsonl@37"]
    assert placed[0] == Document("a.jsonl@0", "x", "mine", {"lang": "en"})


def test_nothing_to_read_is_an_error_before_the_start(tmp_path) -> None:
    with pytest.raises(DataError, match="nothing to read"):
        read_stage(tmp_path)


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=300), end=st.sampled_from((".txt", ".jsonl", ".parquet")))
def test_no_bytes_at_all_stop_the_reader(tmp_path_factory, data: bytes, end: str) -> None:
    path = tmp_path_factory.mktemp("any") / f"a{end}"
    path.write_bytes(data)
    for record in records(path):
        assert isinstance(record, Document | BadRecord)
        if isinstance(record, Document):
            record.text.encode()


@pytest.mark.parametrize("end", [".gz", ".xz", ".zst"])
def test_no_bytes_in_an_archive_stop_the_reader(tmp_path, end: str) -> None:
    for number, data in enumerate((b"", b"\x1f\x8b", b"(\xb5/\xfd", b"\xfd7zXZ\x00", b"text")):
        path = tmp_path / f"{number}.jsonl{end}"
        path.write_bytes(data)
        assert all(isinstance(record, BadRecord) for record in records(path))


def test_a_gzip_bomb_costs_one_record_and_no_memory(tmp_path) -> None:
    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(b'{"text": "before"}\n')
        for _ in range(400):
            stream.write(bytes(1 << 20))
        stream.write(b'\n{"text": "after"}\n')
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = records(path)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    assert [record.text for record in found if isinstance(record, Document)] == ["before", "after"]
    assert [record.reason for record in found if isinstance(record, BadRecord)] == ["too_long"]
    assert grown_kib < 200_000
