"""`criadero export`: both forms, their precisions, what it prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gguf.constants import GGMLQuantizationType as Quantization

from cli.conftest import Program
from criadero.formats.load import open_model
from foreign_models import random_llama, write_gguf


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_gguf(tmp_path / "model.gguf", random_llama(), Quantization.F32)
    return tmp_path / "model.gguf"


def test_a_gguf_file_is_float16_by_default(program: Program, model: Path, tmp_path: Path) -> None:
    done = program("export", model, "gguf", tmp_path / "out.gguf")
    assert done.code == 0, done.stderr
    assert "sentencepiece tokenizer, written in f16" in done.stdout
    assert f"next: criadero generate {tmp_path / 'out.gguf'}" in done.stdout
    assert "F16" in open_model(tmp_path / "out.gguf").kind


def test_json_says_what_was_written(program: Program, model: Path, tmp_path: Path) -> None:
    done = program("export", model, "hf", tmp_path / "out", "--dtype", "bfloat16", "--json")
    found = json.loads(done.stdout)
    size_bytes = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    parameters = sum(parameter.numel() for parameter in random_llama().parameters())
    assert found == {
        "source": str(model), "kind": "GGUF file (F32)", "out": str(tmp_path / "out"), "format": "hf",
        "dtype": "bfloat16", "parameters": parameters, "size_bytes": size_bytes, "tokenizer": "sentencepiece",
    }  # fmt: skip


@pytest.mark.parametrize(("form", "dtype"), [("hf", "q8_0"), ("gguf", "float32"), ("gguf", "q4_k")])
def test_a_precision_of_the_other_form_is_a_usage_error(
    form: str, dtype: str, program: Program, model: Path, tmp_path: Path
) -> None:
    done = program("export", model, form, tmp_path / "out", "--dtype", dtype)
    assert done.code == 2
    assert f"`--dtype {dtype}` is not a precision of the format {form}" in done.stderr
    assert "hint: choose one of f" in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_existing_output_is_one_error_with_a_hint(program: Program, model: Path) -> None:
    done = program("export", model, "gguf", model)
    assert done.code == 1
    assert done.stderr.splitlines() == [
        f"error: `{model}` exists already",
        "hint: choose another output file or remove this one",
    ]
