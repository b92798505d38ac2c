"""Perplexity and bits per byte, against sums done by hand, and the verbs that print them."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from criadero.cli.app import app
from criadero.corpus.ngram import text as text_files
from criadero.corpus.ngram.config import NgramConfig
from criadero.corpus.ngram.model import NgramModel
from criadero.corpus.ngram.score import bits_per_byte, score
from criadero.corpus.ngram.text import score_texts
from criadero.corpus.ngram.train import train, train_on_tokens
from criadero.errors import DataError
from criadero.formats.load import load_tokenizer
from criadero.tokenizer.train import TokenizerTrainConfig
from criadero.tokenizer.train import train as train_tokenizer

GOLDEN = Path(__file__).parent / "golden"

KENLM_TEXT = ["Call me Ishmael zyx .", "the whale of the sea"]
# What `query -v summary` of kenlm 0.3.0 prints for these lines under golden/prose-3.arpa.gz.
KENLM_SUMMARY = {"perplexity": 854.4989133849648, "perplexity_of_known": 129.50628910957954, "unknown": 5}


def test_score_sums_sentences_words_and_unknown_words(tmp_path: Path) -> None:
    train(["a b", "b a", "a"], tmp_path / "model", NgramConfig(order=2))
    model = NgramModel.open(tmp_path / "model")
    sentences = [model.ids(["a", "z", "b"]), model.ids([])]
    found = score(model, sentences)
    values = [model.log10_probabilities(ids) for ids in sentences]
    assert (found.sentences, found.words, found.unknown) == (2, 3, 1)
    total = sum(float(value.sum()) for value in values)
    assert found.log10_probability == pytest.approx(total)
    assert found.perplexity == pytest.approx(10 ** (-total / 5))
    assert found.perplexity_of_known == pytest.approx(10 ** (-(total - values[0][1]) / 4))
    assert found.bits_per_byte(10) == pytest.approx(-total / math.log10(2) / 10)


def test_bits_per_byte_shares_the_unknown_among_the_tokens_never_seen(tmp_path: Path) -> None:
    train_on_tokens([np.array([5, 6, 5]), np.array([6])], tmp_path / "model", NgramConfig(order=2))
    model = NgramModel.open(tmp_path / "model")
    documents = [np.array([5, 9]), np.array([6])]
    total = sum(model.log10_probability(model.token_ids(document)) for document in documents)
    found = bits_per_byte(model, documents, text_bytes=7, vocab_size=10)
    assert found == pytest.approx((-total / math.log10(2) + math.log2(10 - 2)) / 7)


def test_a_uniform_text_costs_the_bits_of_its_alphabet(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, 256, 20_000) for _ in range(2)]
    train_on_tokens(documents[:1], tmp_path / "model", NgramConfig(order=1))
    found = bits_per_byte(
        NgramModel.open(tmp_path / "model"), documents[1:], text_bytes=20_000, vocab_size=256
    )
    assert found == pytest.approx(8, abs=0.02)


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_verbs_train_on_lines_and_score_as_kenlm_does(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_bytes(gzip.decompress((GOLDEN / "prose.txt.gz").read_bytes()))
    (tmp_path / "test.txt").write_text("\n".join(KENLM_TEXT) + "\n")
    made = json.loads(
        run("ngram", "train", tmp_path / "train.txt", "--out", tmp_path / "m", "--order", 3, "--json")
    )
    assert made["counts"] == [int(n) for n in golden_counts("prose-3")]
    found = json.loads(run("ngram", "score", tmp_path / "m", tmp_path / "test.txt", "--json"))
    assert (found["sentences"], found["words"]) == (2, 12 - 2)
    assert {key: found[key] for key in KENLM_SUMMARY} == pytest.approx(KENLM_SUMMARY, rel=1e-5)
    from_arpa = json.loads(run("ngram", "score", GOLDEN / "prose-3.arpa.gz", tmp_path / "test.txt", "--json"))
    assert from_arpa == pytest.approx(found, rel=1e-6)
    assert "perplexity" in run("ngram", "score", tmp_path / "m", tmp_path / "test.txt")


def golden_counts(case: str) -> list[str]:
    text = gzip.decompress((GOLDEN / f"{case}.arpa.gz").read_bytes()).decode()
    return [line.split("=")[1] for line in text.split("\n\n")[0].split("\n")[1:]]


def test_with_a_tokenizer_documents_are_sentences_and_the_model_knows_whose_tokens(tmp_path: Path) -> None:
    text = gzip.decompress((GOLDEN / "prose.txt.gz").read_bytes()).decode()
    for vocab_size, name in ((400, "one"), (420, "other")):
        train_tokenizer({"prose": [text]}, tmp_path / name, TokenizerTrainConfig(vocab_size=vocab_size))
    lines = "".join(json.dumps({"text": line}) + "\n" for line in text.split("\n"))
    (tmp_path / "text.jsonl").write_text(lines)
    arguments = ("ngram", "train", tmp_path / "text.jsonl", "--out", tmp_path / "m", "--memory", "64MB")
    run(*arguments, "--tokenizer", tmp_path / "one")
    found = json.loads(
        run(
            "ngram",
            "score",
            tmp_path / "m",
            tmp_path / "text.jsonl",
            "--tokenizer",
            tmp_path / "one",
            "--json",
        )
    )
    assert found["sentences"] == len(text.split("\n"))
    tokenizer = load_tokenizer(tmp_path / "one")
    model = NgramModel.open(tmp_path / "m")
    documents = [np.array(tokenizer.encode(line), np.int32) for line in text.split("\n")]
    text_bytes = sum(len(line.encode()) for line in text.split("\n"))
    wanted = bits_per_byte(model, documents, text_bytes=text_bytes, vocab_size=tokenizer.vocab_size)
    assert found["bits_per_byte"] == pytest.approx(wanted)
    with pytest.raises(DataError, match="another tokenizer"):
        score_texts(model, [tmp_path / "text.jsonl"], tokenizer=load_tokenizer(tmp_path / "other"))
    with pytest.raises(DataError, match="name its tokenizer"):
        score_texts(model, [tmp_path / "text.jsonl"])


def test_a_text_file_longer_than_any_line_may_be_is_read_line_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "MAX_LINE_BYTES", 10)
    (tmp_path / "a.txt").write_bytes(b"a b c\r\n" * 100 + b"last \xc3\xbc")
    size = text_files.TextSize()
    assert list(text_files.read_lines([tmp_path], size)) == ["a b c\r"] * 100 + ["last ü"]
    assert size.num_bytes == 7 * 100 + 8
    for content, message in (
        (b"a\n" + b"b" * 11, "line 2: more than 10 bytes"),
        (b"a\n\xff\n", "line 2: not UTF-8"),
    ):
        (tmp_path / "a.txt").write_bytes(content)
        with pytest.raises(DataError, match=message):
            list(text_files.read_lines([tmp_path], size))
