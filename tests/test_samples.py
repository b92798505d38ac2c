"""The sample texts are what their manifest says, free to use, small enough, and without duplicates."""

from __future__ import annotations

import hashlib
import json
import lzma
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

SAMPLES = Path(__file__).parent.parent / "samples" / "raw" / "books"
SOURCES: list[dict[str, Any]] = json.loads((SAMPLES / "manifest.json").read_text())["sources"]
FREE = {"CC0-1.0", "public domain"}

each_source = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source["name"])


@cache
def documents(file: str) -> list[dict[str, str]]:
    text = lzma.decompress((SAMPLES / file).read_bytes()).decode("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_manifest_lists_exactly_the_sample_files():
    assert {source["file"] for source in SOURCES} == {path.name for path in SAMPLES.glob("*.xz")}


def test_all_files_together_are_at_most_12_MB_compressed():
    assert sum((SAMPLES / source["file"]).stat().st_size for source in SOURCES) <= 12_000_000


@each_source
def test_file_is_the_one_the_manifest_describes(source):
    data = (SAMPLES / source["file"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == source["sha256"]
    assert len(data) == source["compressed_bytes"]


@each_source
def test_documents_and_bytes_are_as_stated(source):
    texts = [document["text"].encode() for document in documents(source["file"])]
    assert len(texts) == source["documents"]
    assert sum(map(len, texts)) == source["text_bytes"]


@each_source
def test_licence_is_free_and_reasoned(source):
    assert source["licence"] in FREE
    assert len(source["licence_basis"]) > 30


@each_source
def test_provenance_names_a_package_file_with_its_sha256(source):
    provenance = source["provenance"]
    assert all(provenance[key] for key in ("registry", "name", "version", "file", "inside"))
    assert re.fullmatch(r"[0-9a-f]{64}", provenance["sha256"])


@each_source
def test_readme_describes_the_file_and_its_package(source):
    readme = (SAMPLES / "README.md").read_text()
    assert f"**{source['name']}**" in readme
    assert source["provenance"]["sha256"] in readme
    assert f"{source['documents']:,}" in readme
    assert f"{source['text_bytes']:,}" in readme


@each_source
def test_documents_are_clean_text(source):
    for document in documents(source["file"]):
        text = document["text"]
        assert set(document) == {"id", "title", "text"}
        assert document["id"].startswith(source["name"] + "/")
        assert document["title"].strip()
        assert len(text) >= 200
        assert text == text.strip()
        assert not re.search(r"\ufffd|</?\w+>|[^\S\n ]|[\x00-\x09\x0b-\x1f]|  |\n{3}", text)
        assert "Gutenberg" not in text


def test_no_document_or_id_occurs_twice():
    every = [document for source in SOURCES for document in documents(source["file"])]
    assert len({document["text"] for document in every}) == len(every)
    assert len({document["id"] for document in every}) == len(every)
