"""The text reader: what it yields, in which order, and how it names what it cannot use."""

from __future__ import annotations

import gzip
import json
import lzma
from collections import Counter
from pathlib import Path

import pytest

from criadero.corpus.document import Document
from criadero.corpus.sources import text
from criadero.errors import DataError


def _jsonl(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_a_txt_file_is_one_document_with_its_exact_text(tmp_path: Path) -> None:
    content = "One.\r\nTwo — ü 漢字 🦙\n\n\ttabs \x00 and NUL"
    (tmp_path / "speech.txt").write_bytes(content.encode())
    assert list(text.read(tmp_path / "speech.txt")) == [Document("speech.txt", content, "speech")]


def test_jsonl_keeps_ids_source_and_string_fields(tmp_path: Path) -> None:
    path = _jsonl(
        tmp_path / "wiki.jsonl",
        {"id": "Q1", "text": "a", "title": "T", "year": 1999, "source": "wikipedia"},
        {"id": 7, "text": "b"},
        {"text": ""},
    )
    assert list(text.read(path)) == [
        Document("Q1", "a", "wikipedia", {"title": "T"}),
        Document("7", "b", "wiki"),
        Document("wiki.jsonl:3", "", "wiki"),
    ]
    assert {document.source for document in text.read(path, source="mine")} == {"mine"}


def test_compressed_files_read_like_plain_ones(tmp_path: Path) -> None:
    lines = b'{"id": "x", "text": "caf\\u00e9"}\n\n{"id": "y", "text": "z"}\n'
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "a.jsonl.xz").write_bytes(lzma.compress(lines))
    plain = list(text.read(tmp_path / "a.jsonl"))
    assert [document.text for document in plain] == ["café", "z"]
    assert list(text.read(tmp_path / "a.jsonl.gz")) == plain
    assert list(text.read(tmp_path / "a.jsonl.xz")) == plain


def test_a_folder_is_read_sorted_and_only_its_text_files(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("z.txt", "b/y.txt", "a.txt", ".hidden.txt", "README.md"):
        (tmp_path / name).write_text(name)
    names = [document.id for document in text.read(tmp_path)]
    assert names == [f"{tmp_path.name}/{name}" for name in ("a.txt", "b/y.txt", "z.txt")]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"text": "a', "not JSON"),
        (b'{"text": "\xff"}', "not UTF-8 at byte 10"),
        (b'{"text": "\\ud83e"}', "lone surrogate U.D83E at character 0"),
        (b'{"id": "\\udd99", "text": "a"}', "lone surrogate"),
        (b'{"txt": "a"}', "string `text`"),
        (b'["text"]', "string `text`"),
        (b'{"text": "a", "id": true}', "`id` is True"),
        (b'{"text": "a", "id": ""}', "`id` is ''"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_bad_lines_are_named_or_skipped_and_counted(tmp_path: Path, line: bytes, words: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"text": "first"}\n' + line + b'\n{"text": "last"}\n')
    with pytest.raises(DataError, match=r"in\.jsonl:2: .*" + words):
        list(text.read(path))
    skipped: Counter[str] = Counter()
    kept = [document.text for document in text.read(path, on_bad="skip", skipped=skipped)]
    assert kept == ["first", "last"]
    assert skipped == {"in.jsonl": 1}


def test_a_cut_archive_keeps_what_came_before(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"text": str(n) * 40}) + "\n" for n in range(5_000)).encode()
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(gzip.compress(lines)[:-2_000])
    with pytest.raises(DataError, match=r"cut\.jsonl\.gz: cannot be read after line \d"):
        list(text.read(path))
    skipped: Counter[str] = Counter()
    kept = list(text.read(path, on_bad="skip", skipped=skipped))
    assert 0 < len(kept) < 5_000
    assert skipped == {"cut.jsonl.gz": 1}


def test_an_endless_line_is_refused_without_being_read_whole(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(text, "MAX_RECORD_BYTES", 100)
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"text": "a" * 1_000}) + "\n" + json.dumps({"text": "b"}) + "\n")
    with pytest.raises(DataError, match=r"long\.jsonl:1: longer than"):
        list(text.read(path))
    assert [document.text for document in text.read(path, on_bad="skip")] == ["b"]


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        list(text.read(tmp_path / "absent.txt"))
    with pytest.raises(DataError, match="no text to read") as caught:
        list(text.read(tmp_path))
    assert ".jsonl.xz" in str(caught.value)


def test_inputs_are_described_by_size_and_hash(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc")
    (tmp_path / "b.txt.xz").write_bytes(lzma.compress(b"abc"))
    described = text.describe(tmp_path / "a.txt")
    assert described == [
        {
            "name": "a.txt",
            "size_bytes": 3,
            "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        }
    ]
    assert text.estimated_text_bytes(tmp_path / "a.txt") == 3
    assert text.estimated_text_bytes(tmp_path / "b.txt.xz") > 3


def test_a_lone_surrogate_has_no_length_in_bytes() -> None:
    assert Document("x", "né", "s").text_bytes() == 3
    with pytest.raises(DataError, match="'x': character 1 is a lone surrogate"):
        Document("x", "a\udc80", "s").text_bytes()
