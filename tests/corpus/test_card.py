"""The data card: every section is there, and its numbers are those of the corpus."""

from __future__ import annotations

import json
import re

import pytest

from criadero.corpus.build import CorpusResult, build
from criadero.corpus.config import validate_recipe
from criadero.corpus.engine.executor import Inline
from criadero.files import sha256_file


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> CorpusResult:
    folder = tmp_path_factory.mktemp("card")
    records = [
        {"id": "1", "text": "one two three four five six seven", "language": "en", "licence": "MIT"},
        {"id": "2", "text": "one two three four five six seven", "language": "en", "licence": "MIT"},
        {"id": "3", "text": "eins zwei drei vier fünf sechs", "language": "de", "licence": "BSD|0"},
    ]
    lines = [json.dumps(record) for record in records]
    (folder / "a.jsonl").write_text("\n".join([*lines, "{broken"]))
    (folder / "b.txt").write_text("a whole file")
    values = {
        "sources": {
            "mine": {
                "kind": "text",
                "inputs": [str(folder / "a.jsonl")],
                "near_duplicates": {},
                "description": "What I wrote.",
                "version": "of 2026",
                "url": "https://example.org/mine",
                "licence": "CC0",
            },
            "files": {"kind": "text", "inputs": [str(folder / "b.txt")]},
        },
        "mixture": {"weights": {"mine": 3, "files": 1}, "tokens": 1000},
    }
    config = validate_recipe(values, where="the test")
    return build(config, folder / "out", executor=Inline())


@pytest.fixture
def card(corpus: CorpusResult) -> str:
    return (corpus.folder / "card.md").read_text()


def test_the_sections_are_these(card: str) -> None:
    assert re.findall(r"^#+ .*", card, re.MULTILINE) == [
        "# Data card",
        "## Mixture",
        "## Sources",
        "### mine",
        "### files",
        "## Duplicates and contamination",
        "## Known limitations",
        "## Made by",
    ]


def test_the_mixture_has_the_columns_of_table_1(card: str, corpus: CorpusResult) -> None:
    assert "| Dataset | Sampling prop. | Epochs | Disk size | Tokens (estimated) |" in card
    row = corpus.mixture.rows[0]
    assert f"| mine | 75.0% | {row.epochs:.2f} | {row.disk_bytes} bytes | {row.tokens} |" in card


def test_a_source_says_where_it_is_from_and_what_was_left_out(card: str) -> None:
    for line in (
        "- Description: What I wrote.",
        "- Version: of 2026",
        "- From: https://example.org/mine",
        "- Licence: CC0",
        "- Licences of documents: BSD|0 (1), MIT (1)",
        "- Languages: de (1), en (1)",
        "- Licence: not stated in the recipe",
    ):
        assert line in card.splitlines()
    assert "4 documents with 96 characters came in, 2 with 63 are left" in card
    assert re.search(r"^\| read \| 4 \| 3 \| 0 \| 96 \| not_json 1 \|$", card, re.MULTILINE)
    assert re.search(r"^\| near_duplicates \| 3 \| 2 \| 0 \| 63 \| near_duplicate 1 \|$", card, re.MULTILINE)


def test_inputs_and_code_are_named_by_hash(card: str, corpus: CorpusResult) -> None:
    path = corpus.folder.parent / "a.jsonl"
    assert f"| a.jsonl | {path.stat().st_size} | {sha256_file(path)} |" in card
    assert corpus.manifest.code_sha256 in card
    assert corpus.manifest.key in card


def test_duplicates_contamination_and_limits_are_said(card: str) -> None:
    assert "| mine | near-duplicates | 1 |" in card
    assert "| files | nothing |  |" in card
    assert "Documents were not compared with evaluation sets." in card
    assert "Tokens are estimated at 4 bytes each" in card
    assert "Not searched for near-duplicates, and may hold some: `files`." in card
    assert "does not say under which licence it uses `files`." in card
