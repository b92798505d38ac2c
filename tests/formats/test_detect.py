"""What a MODEL may be, and what is said about everything else."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli_w
import torch
from gguf.constants import GGMLQuantizationType as Quantization
from safetensors.torch import save_file

from criadero import files
from criadero.checkpoint.manifest import FileEntry, Manifest, Slice, TensorEntry, step_folder, write_manifest
from criadero.config import to_values
from criadero.errors import CheckpointError, FormatError, TokenizerError
from criadero.formats.detect import detect
from criadero.formats.load import load_model, load_tokenizer
from foreign_models import logits, random_llama, write_gguf, write_meta


def test_each_format_is_told_from_names_and_first_bytes(tmp_path: Path) -> None:
    model = random_llama()
    model.save_pretrained(tmp_path / "hf")
    model.save_pretrained(tmp_path / "run" / "model")
    write_meta(tmp_path / "meta", model, parts=1)
    (tmp_path / "folder").mkdir()
    write_gguf(tmp_path / "folder" / "any.name", model, Quantization.F32)
    write_gguf(tmp_path / "folder" / "m.gguf", model, Quantization.F32)
    found = {name: detect(tmp_path / name) for name in ("hf", "run", "meta", "folder", "folder/any.name")}
    assert {name: f.kind for name, f in found.items()} == {
        "hf": "huggingface", "run": "huggingface", "meta": "meta",
        "folder": "gguf", "folder/any.name": "gguf",
    }  # fmt: skip
    assert found["run"].path == tmp_path / "run" / "model"
    assert found["folder"].path == tmp_path / "folder" / "m.gguf"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent", None, "does not exist"),
        ("folder/", None, "holds no model: neither config.json"),
        ("m.gguf", b"GGML....", "not a GGUF file"),
        ("m.gguf", b"", "not a GGUF file"),
        ("m.safetensors", b"12345678{}", "without a config"),
        ("m.txt", b"once upon a time", "not a GGUF file"),
    ],
)
def test_what_is_no_model_is_refused_with_what_was_looked_for(
    name: str, content: bytes | None, message: str, tmp_path: Path
) -> None:
    if name.endswith("/"):
        (tmp_path / name).mkdir()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=message):
        load_model(tmp_path / name)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with the checkpoints of two steps, written by hand, and no finished model."""
    random_llama().save_pretrained(tmp_path / "hf")
    config = load_model(tmp_path / "hf").config
    values = {"model": to_values(config), "data": {"sources": [{"path": str(tmp_path / "data")}]}}
    files.write_text(make_folder(tmp_path / "run") / "config.toml", tomli_w.dumps(values))
    for step in (3, 5):
        folder = make_folder(step_folder(tmp_path / "run" / "checkpoints", step))
        write_checkpoint(folder, load_model(tmp_path / "hf").model.state_dict(), step=step)
    return tmp_path / "run"


def make_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def write_checkpoint(folder: Path, weights: dict[str, torch.Tensor], *, step: int) -> None:
    """One file of tensors, every weight with `step` added, and one tensor of the optimizer."""
    tensors = {f"model.{name}": weight + step for name, weight in weights.items()}
    tensors["optimizer.norm.weight.exp_avg"] = torch.zeros(96)
    save_file(tensors, folder / "all.safetensors")
    files.write_json(folder / "state.json", {})
    listed = {
        path.name: FileEntry(size_bytes=path.stat().st_size, sha256=files.sha256_file(path))
        for path in folder.iterdir()
    }
    entries = {
        name: TensorEntry(
            shape=tuple(tensor.shape),
            dtype="float32",
            slices=(Slice("all.safetensors", (0,) * tensor.dim(), tuple(tensor.shape)),),
        )
        for name, tensor in tensors.items()
    }
    manifest = Manifest(step=step, tokens=1, config_sha256="", world_size=1, files=listed, tensors=entries)
    write_manifest(folder, manifest)


def test_a_run_without_a_finished_model_gives_its_newest_checkpoint(run: Path) -> None:
    original = load_model(run.parent / "hf").model.state_dict()
    for path, step in ((run, 5), (run / "checkpoints", 5), (step_folder(run / "checkpoints", 3), 3)):
        weights = load_model(path).model.state_dict()
        assert all(torch.equal(weights[name], weight + step) for name, weight in original.items())


def test_a_damaged_newest_checkpoint_is_passed_over(run: Path) -> None:
    path = step_folder(run / "checkpoints", 5) / "all.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert str(step_folder(run / "checkpoints", 3)) in load_model(run).source
    with pytest.raises(CheckpointError, match="damaged"):
        load_model(step_folder(run / "checkpoints", 5))


def test_a_checkpoint_away_from_its_run_is_refused(run: Path) -> None:
    (run / "config.toml").unlink()
    with pytest.raises(CheckpointError, match=r"config\.toml"):
        load_model(run)


def test_the_tokenizer_of_a_run_is_that_of_its_data(run: Path) -> None:
    with pytest.raises(TokenizerError, match="not where"):
        load_tokenizer(run)
    assert load_model(run).tokenizer is None
    write_gguf(run.parent / "m.gguf", random_llama(), Quantization.F32)
    load_tokenizer(run.parent / "m.gguf").save(run.parent / "data" / "tokenizer")
    expected = load_tokenizer(run.parent / "m.gguf").encode("hi the")
    for path in (run, run / "checkpoints", step_folder(run / "checkpoints", 3)):
        assert load_tokenizer(path).encode("hi the") == expected
    loaded = load_model(run)
    assert loaded.tokenizer is not None
    assert loaded.tokenizer.encode("hi the") == expected


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", random_llama(vocab_size=270), Quantization.F32)
    with pytest.raises(FormatError, match="271 tokens"):
        load_model(tmp_path / "m.gguf")


def test_the_precision_asked_for_is_the_model_s(tmp_path: Path) -> None:
    random_llama().save_pretrained(tmp_path / "hf")
    model = load_model(tmp_path / "hf", dtype=torch.bfloat16).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert logits(model).dtype == torch.bfloat16
