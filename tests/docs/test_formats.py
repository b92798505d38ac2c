"""docs/reference/formats.md says what the program writes into corpora, n-gram models and benchmarks."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from criadero.corpus import benchmark_sets, ledger, open_corpus
from criadero.corpus.build import build
from criadero.corpus.config import load_recipe
from criadero.corpus.engine import documents
from criadero.corpus.engine.executor import Inline
from criadero.corpus.engine.flow import SetAside
from criadero.corpus.manifest import CorpusManifest, Part, SourceManifest
from criadero.corpus.mixture import MixtureRow
from criadero.corpus.ngram import table
from documented import ROOT

TEXT = (ROOT / "docs" / "reference" / "formats.md").read_text()


def section(title: str) -> str:
    return TEXT.split(f"## {title}\n")[1].split("\n## ", maxsplit=1)[0]


def column_table(opening: str) -> list[tuple[str, str]]:
    """Name and type of the columns in the table after `opening`."""
    rows = section("Corpus folder").split(opening)[1].strip().split("\n\n")[1]
    return re.findall(r"^\| `(\w+)` \| ([\w ]+) \|", rows, re.MULTILINE)


@pytest.mark.parametrize(
    ("opening", "schema"),
    [("columns of the documents", documents.SCHEMA), ("columns of the ledger", ledger.SCHEMA)],
)
def test_columns_and_types_are_those_of_the_files(opening: str, schema) -> None:
    types = [re.sub(r"map<string, string.*>", "map of string to string", str(field.type)) for field in schema]
    assert column_table(opening) == list(zip(schema.names, types, strict=True))


def test_every_key_of_manifest_mixture_and_quarantine_is_named() -> None:
    named = set(re.findall(r"`(\w+)`", section("Corpus folder")))
    models = (CorpusManifest, SourceManifest, Part)
    keys = {name for model in models for name in model.model_fields}
    keys |= {field.name for model in (MixtureRow, SetAside) for field in fields(model)}
    assert keys - named == set()


def test_a_corpus_holds_the_files_that_are_listed_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": "a", "text": "one two"}))
    (tmp_path / "recipe.toml").write_text('[sources.mine]\nkind = "text"\ninputs = ["in.jsonl"]\n')
    build(load_recipe(tmp_path / "recipe.toml"), tmp_path / "out", executor=Inline())
    listed = {
        name
        for row in re.findall(r"^\| `.*", section("Corpus folder"), re.MULTILINE)
        for name in re.findall(r"`([^`]+)`", row.split(" | ")[0])
    }
    written = {
        re.sub(
            r"\d{5}", "NNNNN", re.sub(r"/\d\d-", "/GG-", path.relative_to(tmp_path / "out").as_posix())
        ).replace("mine", "SOURCE")
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert written - listed == set()
    assert {"models/SOURCE/", "quarantine.jsonl", "work/"} >= {
        name for name in listed if "." in name or name.endswith("/")
    } - written


def test_the_header_of_an_ngram_model_is_described_whole() -> None:
    text = section("N-gram model")
    assert {field.name for field in fields(table.Header)} - set(re.findall(r"`(\w+)`", text)) == set()
    assert f"`{table.MAGIC.decode()}`" in text
    assert f"| {table.HEADER_BYTES:,} |" in text
    assert f"multiples\nof {table.ALIGNMENT} bytes" in text
    assert f"version {table.VERSION}," in text


def test_what_fetching_writes_is_described_whole() -> None:
    text = section("Benchmarks folder")
    named = set(re.findall(r"`(\w+)`", text))
    assert set(benchmark_sets.describe(benchmark_sets.BENCHMARKS[0])) | {"sha256"} <= named
    for module in (benchmark_sets, open_corpus):
        assert f'"{module.FORMAT}", `version` {module.FORMAT_VERSION}' in " ".join(text.split())
