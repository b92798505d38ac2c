"""Parquet, Zstandard and globs: the same documents and the same policy as for plain files."""

from __future__ import annotations

import builtins
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from criadero.corpus.document import Document
from criadero.corpus.sources import text
from criadero.errors import DataError

STRINGS = pa.map_(pa.string(), pa.string())


def write_parquet(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


def test_parquet_as_corpus_build_writes_it_reads_back_whole(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "part-00000.parquet",
        id=["w:1", "w:2", "w:3"],
        text=["eins", "zwei — ü 🦙", ""],
        source=["wiki", "wiki", "wiki"],
        metadata=pa.array([[("title", "T"), ("lang", "de")], [], None], STRINGS),
    )
    assert list(text.read(path)) == [
        Document("w:1", "eins", "wiki", {"title": "T", "lang": "de"}),
        Document("w:2", "zwei — ü 🦙", "wiki"),
        Document("w:3", "", "wiki"),
    ]
    assert list(text.read(tmp_path)) == list(text.read(path)), "a folder of parts"
    assert {document.source for document in text.read(path, source="mine")} == {"mine"}


def test_parquet_as_others_publish_it(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "c4.parquet",
        text=pa.array(["a", "b"]).dictionary_encode().cast(pa.large_string()),
        id=pa.array([7, None], pa.int32()),
        url=["https://x", None],
        tokens=[1, 2],
        meta=[{"a": 1}, {"a": 2}],
    )
    assert list(text.read(path)) == [
        Document("7", "a", "c4", {"url": "https://x"}),
        Document("c4.parquet:2", "b", "c4"),
    ]


def test_a_string_that_is_not_utf8_costs_its_row_alone(tmp_path: Path) -> None:
    broken = pa.array([b"good", b"b\xff", b"last", None]).cast(pa.string(), safe=False)
    path = write_parquet(tmp_path / "a.parquet", text=broken)
    with pytest.raises(DataError, match=r"a\.parquet:2: not UTF-8 at byte 1"):
        list(text.read(path))
    skipped: Counter[str] = Counter()
    kept = [document.id for document in text.read(path, on_bad="skip", skipped=skipped)]
    assert kept == ["a.parquet:1", "a.parquet:3"]
    assert skipped == {"a.parquet": 2}


def test_damage_to_a_parquet_file_costs_its_row_group_or_what_the_footer_described(tmp_path: Path) -> None:
    texts = [f"text number {n} " * 5 for n in range(6)]
    path = tmp_path / "a.parquet"
    table = pa.table({"text": texts})
    pq.write_table(table, path, row_group_size=2, write_page_checksum=True, compression="none")
    whole = path.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for at in range(4, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        skipped: Counter[str] = Counter()
        kept = [document.text for document in text.read(path, on_bad="skip", skipped=skipped)]
        if at < footer:
            lost = [number for number in range(6) if texts[number] not in kept]
            assert lost in ([], [0, 1], [2, 3], [4, 5]), "a header has bytes that matter to nobody"
            assert skipped.total() == bool(lost)
            assert set(kept) <= set(texts)
    for length in range(0, len(whole), 50):
        path.write_bytes(whole[:length])
        assert list(text.read(path, on_bad="skip")) == []


def test_a_table_without_text_says_what_it_has(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", content=["x"], n=[1])
    with pytest.raises(DataError, match=r"column `text` of strings, found: content \(string\), n \(int64\)"):
        list(text.read(path))


def test_zstandard_reads_like_plain_files_and_a_cut_is_noticed(tmp_path: Path) -> None:
    lines = b"".join(json.dumps({"text": f"{n} " * 50}).encode() + b"\n" for n in range(3_000))
    (tmp_path / "a.jsonl").write_bytes(lines)
    packed = zstandard.compress(lines[:90_000]) + zstandard.compress(lines[90_000:])
    (tmp_path / "a.jsonl.zst").write_bytes(packed)
    plain = [document.text for document in text.read(tmp_path / "a.jsonl")]
    assert [document.text for document in text.read(tmp_path / "a.jsonl.zst")] == plain
    (tmp_path / "b.txt.zst").write_bytes(zstandard.compress("é".encode()))
    assert [document.text for document in text.read(tmp_path / "b.txt.zst")] == ["é"]
    (tmp_path / "a.jsonl.zst").write_bytes(packed[:-5])
    with pytest.raises(DataError, match="cannot be read after line"):
        list(text.read(tmp_path / "a.jsonl.zst"))
    kept = [document.text for document in text.read(tmp_path / "a.jsonl.zst", on_bad="skip")]
    assert kept == plain[: len(kept)]


def test_a_glob_takes_the_readable_files_it_matches(tmp_path: Path) -> None:
    for name in ("b1.txt", "b2.txt", "a.txt", "b.md"):
        (tmp_path / name).write_text(name)
    assert [document.id for document in text.read(tmp_path / "b*")] == ["b1.txt", "b2.txt"]
    with pytest.raises(DataError, match=r"`.*/c\*` matches no text to read"):
        list(text.read(tmp_path / "c*"))
    (tmp_path / "c[1].txt").write_text("a name that looks like a glob")
    assert [document.id for document in text.read(tmp_path / "c[1].txt")] == ["c[1].txt"]


def test_without_the_library_the_error_says_what_to_install(tmp_path: Path, monkeypatch) -> None:
    real_import = builtins.__import__

    def no_pyarrow(name, *arguments, **options):
        if name.startswith("pyarrow"):
            raise ModuleNotFoundError(f"No module named '{name}'", name="pyarrow")
        return real_import(name, *arguments, **options)

    (tmp_path / "a.parquet").touch()
    (tmp_path / "a.jsonl.zst").touch()
    monkeypatch.setattr(builtins, "__import__", no_pyarrow)
    for name in ("a.parquet", "a.jsonl.zst"):
        with pytest.raises(DataError, match=r"needs the library `pyarrow`[\s\S]*criadero\[corpus\]"):
            list(text.read(tmp_path / name))
