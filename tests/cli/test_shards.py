"""The verbs `shards build` and `shards show`, from text files to the text of a training step."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from typer.testing import CliRunner, Result

from criadero.cli.shards import app
from criadero.errors import ConfigError, DataError, UsageError
from criadero.shards.batches import Batches
from criadero.shards.config import DataConfig, SourceConfig
from shards.fake_tokenizer import ByteTokenizer

TEXTS = {f"doc-{n}": f"text {n} é漢🦙\n" * (n + 1) for n in range(20)}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("criadero.formats.load.load_tokenizer", lambda path: ByteTokenizer())
    records = [json.dumps({"id": key, "text": text}) + "\n" for key, text in TEXTS.items()]
    (tmp_path / "in.jsonl").write_text("".join(records) + "broken\n")
    options = ["--tokenizer", "any", "--out", tmp_path / "out", "--heldout-fraction", "0.3", "--skip-bad"]
    result = run("build", tmp_path / "in.jsonl", *options, "--shard-tokens", 500, "--json")
    assert json.loads(result.stdout)["skipped"] == {"in.jsonl": 1}
    return tmp_path / "out"


def test_show_summarises_both_splits(built: Path) -> None:
    lines = run("show", built).stdout.splitlines()
    assert [line.split(":")[0] for line in lines if not line.startswith(" ")] == ["train", "heldout"]
    splits = json.loads(run("show", built, "--json").stdout)
    assert sum(split["num_documents"] for split in splits.values()) == 20
    assert sum(split["num_bytes"] for split in splits.values()) == sum(
        len(t.encode()) for t in TEXTS.values()
    )


def test_show_prints_a_documents_exact_text(built: Path) -> None:
    for key, text in TEXTS.items():
        assert run("show", built, "--document", key).stdout == text
    assert json.loads(run("show", built, "--document", "doc-3", "--json").stdout)["text"] == TEXTS["doc-3"]
    with pytest.raises(DataError, match="'doc-99'"):
        run("show", built, "--document", "doc-99")


def test_show_prints_the_exact_text_of_a_past_step(built: Path, tmp_path: Path) -> None:
    config = {
        "run": {"folder": str(tmp_path / "run")},
        "model": {"vocab_size": 259, "dim": 8, "num_layers": 1, "num_heads": 1, "max_seq_len": 16},
        "data": {"sources": [{"name": "a", "path": str(built)}], "seq_len": 16, "seed": 4},
        "train": {"tokens": 6400, "batch_tokens": 64},
    }
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.toml").write_text(tomli_w.dumps(config))
    shown = json.loads(run("show", "--run", tmp_path / "run", "--step", 3, "--json").stdout)
    assert [sample["sample"] for sample in shown["samples"]] == [8, 9, 10, 11]
    batches = Batches(DataConfig(sources=(SourceConfig(name="a", path=built),), seq_len=16, seed=4))
    located = batches.order.locate(np.arange(8, 12)).sequence.tolist()
    assert [sample["sequence"] for sample in shown["samples"]] == located
    for sample in shown["samples"]:
        assert all(passage["text"] in TEXTS[passage["document_id"]] for passage in sample["passages"])
    with pytest.raises(UsageError, match="has 100 steps, there is no step 101"):
        run("show", "--run", tmp_path / "run", "--step", 101)
    plain = run("show", "--run", tmp_path / "run", "--step", 3).stdout
    assert all(passage["text"] in plain for sample in shown["samples"] for passage in sample["passages"])


@pytest.mark.parametrize(
    "arguments",
    [[], ["--step", "1"], ["--run", "x"], ["x", "--run", "x", "--step", "1"], ["--run", "x", "--step", "1"]],
)
def test_what_cannot_be_shown_is_a_usage_error(arguments: list[str]) -> None:
    with pytest.raises(UsageError):
        run("show", *arguments)


def test_bad_settings_are_refused_before_anything_is_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("criadero.formats.load.load_tokenizer", lambda path: ByteTokenizer())
    with pytest.raises(ConfigError, match="heldout_fraction"):
        run("build", "absent", "--tokenizer", "t", "--out", tmp_path / "out", "--heldout-fraction", 1.5)
