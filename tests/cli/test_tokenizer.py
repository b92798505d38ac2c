"""`criadero tokenizer`: what programs read on stdout, and what people get for their mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from criadero.cli.tokenizer import app
from criadero.errors import CriaderoError, DataError, UsageError

TEXT = "A line of text with words, numbers like 1984 and more words.\n" * 200


def run(arguments: list[str], stdin: bytes = b"") -> str:
    result = CliRunner().invoke(app, arguments, input=stdin)
    if isinstance(result.exception, CriaderoError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout_bytes.decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cli")
    (root / "prose.txt").write_text(TEXT)
    (root / "code.txt").write_text("def f(x):\n    return x\n" * 300)
    out = root / "tokenizer"
    sources = [str(root / "prose.txt"), f"code={root / 'code.txt'}"]
    shares = ["--weight", "prose.txt=3", "--weight", "code=1"]
    printed = run(
        ["train", str(out), *sources, *shares, "--vocab-size", "310", "--sample-bytes", "8000", "--json"]
    )
    assert json.loads(printed)["vocab_size"] == 310
    return out


def test_training_records_its_sources_and_shares(folder: Path) -> None:
    record = json.loads((folder / "training.json").read_text())
    assert record["sources"]["prose.txt"]["kept_bytes"] == pytest.approx(6000, abs=70)
    assert record["sources"]["code"]["kept_bytes"] == pytest.approx(2000, abs=20)
    assert record["config"]["weights"] == {"prose.txt": 3.0, "code": 1.0}


def test_encode_prints_ids_that_decode_to_the_same_bytes(folder: Path) -> None:
    text = " leading blank, </s>, \r\n\x00 and 日本\n"
    ids = json.loads(run(["encode", str(folder), "--json"], text.encode()))["ids"]
    assert run(["encode", str(folder)], text.encode()).split() == [str(i) for i in ids]
    assert not {0, 1, 2} & set(ids)
    assert run(["decode", str(folder)], " ".join(map(str, ids)).encode()) == text
    assert json.loads(run(["decode", str(folder), "--json"], b"1 2"))["text"] == ""
    assert json.loads(run(["encode", str(folder), "--json"], b"")) == {"ids": []}


def test_mistakes_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="stdin is not UTF-8 text: byte 2"):
        run(["encode", str(folder)], b"ab\xff")
    with pytest.raises(UsageError, match="'x' on stdin is not an id"):
        run(["decode", str(folder)], b"1 x 2")
    with pytest.raises(DataError, match="outside the vocabulary"):
        run(["decode", str(folder)], b"310")
    with pytest.raises(UsageError, match="NAME=SHARE"):
        run(["train", str(tmp_path / "out"), "a=b", "--weight", "a=much"])
    with pytest.raises(UsageError, match="two sources are called `a`"):
        run(["train", str(tmp_path / "out"), "a=x.txt", "a=y.txt"])
    with pytest.raises(CriaderoError, match="`vocab_size` is 5"):
        run(["train", str(tmp_path / "out"), "a=x.txt", "--vocab-size", "5"])


@pytest.mark.network
def test_a_gguf_file_is_a_tokenizer_too() -> None:
    from packaged import packaged_file

    printed = run(["encode", str(packaged_file("llama-vocab-gguf")), "--json"], b"Hello world")
    assert json.loads(printed) == {"ids": [15043, 3186]}
