"""`criadero import`: every format becomes a folder that transformers loads; the source stays as it was."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from gguf.constants import GGMLQuantizationType as Quantization
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from criadero import files
from criadero.cli.import_ import import_
from criadero.errors import FormatError, ResourceError, UsageError
from criadero.formats.importing import import_model
from criadero.formats.load import load_model, load_tokenizer
from foreign_models import logits, random_llama, write_gguf, write_meta


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """One model in four formats, all with the same tokenizer but Hugging Face's byte-level one."""
    folder = tmp_path / "sources"
    folder.mkdir()
    model = random_llama(num_key_value_heads=3)
    write_gguf(folder / "spm.gguf", model, Quantization.F32)
    write_gguf(folder / "bytes.gguf", model, Quantization.Q8_0, vocabulary="gpt2")
    model.to(torch.bfloat16).save_pretrained(folder / "hf", max_shard_size="60KB")
    load_tokenizer(folder / "bytes.gguf").save(folder / "hf")
    write_meta(folder / "meta", model, parts=1)
    load_tokenizer(folder / "spm.gguf").save(folder / "meta")
    (folder / "meta" / "tokenizer.json").unlink()
    return folder


def state_of(folder: Path) -> dict[str, Any]:
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_mode, path.is_file() and files.sha256_file(path))
        for path in [folder, *sorted(folder.rglob("*"))]
    }


@pytest.mark.parametrize(
    ("name", "dtype", "tokenizer"),
    [
        ("hf", torch.bfloat16, "byte-bpe"),
        ("meta", torch.bfloat16, "sentencepiece"),
        ("spm.gguf", torch.float32, "sentencepiece"),
        ("bytes.gguf", torch.float16, "byte-bpe"),
    ],
)
def test_transformers_loads_what_import_writes(
    name: str, dtype: torch.dtype, tokenizer: str, sources: Path, tmp_path: Path
) -> None:
    for path in [*sources.rglob("*"), sources]:
        os.chmod(path, 0o555 if path.is_dir() else 0o444)
    before = state_of(sources)
    done = import_model(sources / name, tmp_path / "out")
    assert state_of(sources) == before
    assert (done.dtype, done.tokenizer) == (str(dtype).removeprefix("torch."), tokenizer)

    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto", attn_implementation="eager")
    assert theirs.dtype == dtype
    assert done.parameters == sum(parameter.numel() for parameter in theirs.parameters())
    ours = load_model(tmp_path / "out").model
    torch.testing.assert_close(logits(theirs.float().eval()), logits(ours), atol=1e-4, rtol=1e-4)
    # float16 is 11 bits: what import writes differs from the source by that rounding only.
    tolerance = {"atol": 0.1, "rtol": 1e-2} if dtype == torch.float16 else {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(logits(ours), logits(load_model(sources / name).model), **tolerance)

    theirs_tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in (
        "hi the hi",
        "  two  blanks ",
        "\u00e9\U0001f600 ",
        "a\nb",
    ):
        ids = load_tokenizer(sources / name).encode(text)
        assert theirs_tokenizer.encode(text, add_special_tokens=False) == ids
    for path in [*sources.rglob("*"), sources]:
        os.chmod(path, 0o755 if path.is_dir() else 0o644)


def test_the_manifest_names_the_source_and_its_hashes(sources: Path, tmp_path: Path) -> None:
    import_model(sources / "spm.gguf", tmp_path / "out", dtype=torch.float32)
    inputs = json.loads((tmp_path / "out" / "manifest.json").read_text())["inputs"]
    assert inputs["sha256"] == {"spm.gguf": files.sha256_file(sources / "spm.gguf")}


def test_an_unknown_chat_template_stays_unknown_after_the_import(sources: Path, tmp_path: Path) -> None:
    import_model(sources / "bytes.gguf", tmp_path / "out")
    loaded = load_model(tmp_path / "out")
    assert loaded.has_unknown_template
    assert loaded.chat_template is None


def test_an_output_inside_the_source_is_refused(sources: Path) -> None:
    before = state_of(sources)
    with pytest.raises(UsageError, match="inside the source"):
        import_model(sources / "hf", sources / "hf" / "out")
    assert state_of(sources) == before


def test_a_full_disk_is_seen_before_anything_is_written(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: FreeNothing)
    with pytest.raises(ResourceError, match="writing the model"):
        import_model(sources / "hf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


class FreeNothing:
    free = 0


def test_the_command_says_what_it_wrote(sources: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(import_)
    told = CliRunner().invoke(app, [str(sources / "bytes.gguf"), str(tmp_path / "a")])
    assert told.exit_code == 0
    assert "byte-bpe tokenizer, written in float16" in told.stdout
    command = [str(sources / "hf"), str(tmp_path / "b"), "--dtype", "float32", "--json"]
    printed = json.loads(CliRunner().invoke(app, command).stdout)
    assert printed["dtype"] == "float32"
    assert printed["kind"] == "Hugging Face folder"


def test_a_flipped_bit_in_a_folder_of_ours_is_found(sources: Path, tmp_path: Path) -> None:
    import_model(sources / "spm.gguf", tmp_path / "ours")
    weights = tmp_path / "ours" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    with pytest.raises(FormatError, match=r"model\.safetensors` is damaged"):
        import_model(tmp_path / "ours", tmp_path / "again")
    assert not (tmp_path / "again").exists()
