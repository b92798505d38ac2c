"""`criadero perplexity` and `criadero quantize`, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gguf.constants import GGMLQuantizationType

from cli.conftest import Program
from foreign_models import random_llama, write_gguf


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_gguf(tmp_path / "m.gguf", random_llama(), GGMLQuantizationType.F32)
    (tmp_path / "text").write_text("hi the 12, hi the 34; " * 9)
    return tmp_path / "m.gguf"


def test_perplexity_prints_the_four_numbers_as_json(program: Program, source: Path):
    done = program("perplexity", source, source.parent / "text", "--json")
    assert done.code == 0
    score = json.loads(done.stdout)
    assert set(score) == {"tokens", "nll_per_token", "perplexity", "bits_per_byte"}
    assert score["tokens"] > 50


def test_perplexity_is_one_line_for_people_and_settings_count(program: Program, source: Path):
    done = program("perplexity", source, source.parent / "text", "--context", 20, "--stride", 3)
    assert done.stdout.startswith("perplexity ")
    assert "bits per byte" in done.stdout
    whole = program("perplexity", source, source.parent / "text")
    assert done.stdout != whole.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["m.gguf", "none"], 1, "cannot be read"),
        (["m.gguf", "empty"], 1, "too few"),
        (["m.gguf", "text", "--context", "999"], 2, "2 to 128"),
        (["text", "text"], 1, "not a GGUF file"),
    ],
)
def test_perplexity_says_what_is_wrong_and_what_to_do(
    arguments: list[str], code: int, message: str, program: Program, source: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.chdir(source.parent)
    Path("empty").touch()
    done = program("perplexity", *arguments)
    assert done.code == code
    assert message in done.stderr
    assert "hint: " in done.stderr


def test_quantize_tells_perplexity_before_and_after(program: Program, source: Path):
    out = source.parent / "out.gguf"
    done = program("quantize", source, out, "--bits", "4", "--text", source.parent / "text")
    assert done.code == 0
    assert " -> " in done.stdout
    assert "memory to answer: " in done.stdout
    assert done.stdout.endswith(f"next: criadero generate {out} 'Once upon a time'\n")
    again = program("perplexity", out, source.parent / "text", "--json")
    assert f"-> {json.loads(again.stdout)['perplexity']:.4f} " in done.stdout


def test_quantize_as_json_uses_the_text_that_comes_along(program: Program, source: Path):
    done = program("quantize", source, source.parent / "out.gguf", "--bits", "8", "--json")
    values = json.loads(done.stdout)
    assert values["before"]["tokens"] == values["after"]["tokens"] > 10_000
    assert abs(values["perplexity_change"]) < 0.02


def test_quantize_refuses_an_output_that_exists_and_bits_it_has_not(program: Program, source: Path):
    done = program("quantize", source, source, "--bits", "8")
    assert (done.code, "exists already" in done.stderr, "hint: " in done.stderr) == (1, True, True)
    assert program("quantize", source, source.parent / "out", "--bits", "5").code == 2
    done = program("quantize", source.parent / "none", source.parent / "out", "--bits", "8")
    assert (done.code, "does not exist" in done.stderr, "hint: " in done.stderr) == (1, True, True)
