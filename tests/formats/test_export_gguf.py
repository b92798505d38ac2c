"""GGUF files that we write: weights, metadata and rotary scaling, read back by us and by the gguf library."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf.constants import GGMLQuantizationType as Quantization

from criadero import files
from criadero.errors import FormatError, ResourceError, RunError, UsageError
from criadero.formats import gguf_write
from criadero.formats.exporting import export_gguf
from criadero.formats.gguf_header import read_header
from criadero.formats.load import load_model, open_model
from criadero.formats.model_card import TrainingFacts
from criadero.formats.names import halves_to_interleaved, interleaved_to_halves
from foreign_models import logits, random_llama, write_gguf, write_meta
from naive_llama import interleaved_rows
from ranks import run_until_end

LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
BLOCKS = ["q8_0", "q4_0", "q4_1"]


def export(source: Path, out: Path, **options: Any) -> Path:
    export_gguf(source, out, facts_of=lambda stored: TrainingFacts(), **options)
    return out


def weights(path: Path) -> dict[str, torch.Tensor]:
    return {name: tensor.read() for name, tensor in open_model(path).tensors.items()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A model without a tokenizer, q and k of 3 and 1 heads."""
    random_llama().save_pretrained(tmp_path / "hf")
    return tmp_path / "hf"


def test_rows_in_pairs_are_the_inverse_of_rows_in_halves() -> None:
    weight_OD = torch.arange(3 * 8 * 5).reshape(3 * 8, 5)
    paired = halves_to_interleaved(weight_OD, head_dim=8)
    assert torch.equal(paired, interleaved_rows(weight_OD, head_dim=8))
    assert torch.equal(interleaved_to_halves(paired, head_dim=8), weight_OD)


@pytest.mark.parametrize(
    "overrides",
    [{}, {"tie_word_embeddings": True}, {"head_dim": 40, "rms_norm_eps": 1e-3},
     {"rope_parameters": LLAMA3_ROPE, "max_position_embeddings": 512}],
    ids=["grouped", "tied", "wide heads", "llama3 rope"],
)  # fmt: skip
def test_float32_comes_back_bit_for_bit(overrides: dict[str, Any], tmp_path: Path) -> None:
    random_llama(**overrides).save_pretrained(tmp_path / "hf")
    out = export(tmp_path / "hf", tmp_path / "new" / "m.gguf", dtype="f32")
    before, after = weights(tmp_path / "hf"), weights(out)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert open_model(out).config == open_model(tmp_path / "hf").config
    assert [path.name for path in out.parent.iterdir()] == ["m.gguf"]


@pytest.mark.parametrize(("dtype", "kept"), [("f16", torch.float16), ("bf16", torch.bfloat16)])
def test_half_precision_is_torchs_rounding_and_norms_stay_float32(
    dtype: str, kept: torch.dtype, source: Path, tmp_path: Path
) -> None:
    after = weights(export(source, tmp_path / "m.gguf", dtype=dtype))
    for name, weight in weights(source).items():
        expected = weight.to(kept) if weight.dim() == 2 else weight
        assert after[name].dtype == expected.dtype
        assert torch.equal(after[name], expected), name


@pytest.mark.parametrize("dtype", BLOCKS)
def test_blocks_are_those_of_the_gguf_library(dtype: str, source: Path, tmp_path: Path) -> None:
    out = export(source, tmp_path / "m.gguf", dtype=dtype)
    write_gguf(tmp_path / "theirs.gguf", random_llama(), Quantization[dtype.upper()])
    after, expected = weights(out), weights(tmp_path / "theirs.gguf")
    assert all(torch.equal(after[name], expected[name]) for name in expected)


@pytest.mark.parametrize("dtype", BLOCKS)
def test_blocks_of_the_same_type_are_copied(dtype: str, tmp_path: Path) -> None:
    """Codes that do not use their whole range are not what quantising their values again would give."""
    write_gguf(tmp_path / "m.gguf", random_llama(), Quantization[dtype.upper()])
    unused_codes(tmp_path / "m.gguf")
    out = export(tmp_path / "m.gguf", tmp_path / "again.gguf", dtype=dtype)
    before, after = read_header(tmp_path / "m.gguf").tensors, read_header(out).tensors
    for name, tensor in before.items():
        assert after[name].type == tensor.type
        assert content(tmp_path / "m.gguf", tensor) == content(out, after[name]), name


def test_rounding_blocks_a_second_time_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_gguf(tmp_path / "m.gguf", random_llama(), Quantization.Q4_1)
    export(tmp_path / "m.gguf", tmp_path / "same.gguf", dtype="q4_1")
    assert "loses more" not in caplog.text
    export(tmp_path / "m.gguf", tmp_path / "other.gguf", dtype="q4_0")
    assert "rounding it again, to q4_0, loses more" in caplog.text


def unused_codes(path: Path) -> None:
    """Overwrite the codes of the first blocks of the embedding with ones in the middle of their range."""
    tensor = read_header(path).tensors["token_embd.weight"]
    block_bytes = gguf.GGML_QUANT_SIZES[tensor.type][1]
    code_bytes = 32 if tensor.type == Quantization.Q8_0 else 16
    with path.open("r+b") as stream:
        for block in range(5):
            stream.seek(tensor.start_bytes + block * block_bytes + block_bytes - code_bytes)
            stream.write(bytes([0x67]) * code_bytes)


def content(path: Path, tensor: Any) -> bytes:
    with path.open("rb") as stream:
        stream.seek(tensor.start_bytes)
        return stream.read(tensor.size_bytes)


def test_a_file_of_mixed_blocks_keeps_each_where_most_are_as_asked(tmp_path: Path) -> None:
    model = random_llama()
    write_gguf(tmp_path / "m.gguf", model, Quantization.Q4_1)
    mixed = rewritten_head(tmp_path / "m.gguf", tmp_path / "mixed.gguf", model)
    types = {name: t.type.name for name, t in read_header(mixed).tensors.items()}
    assert types["output.weight"] == "Q8_0"
    same, other = (
        read_header(export(mixed, tmp_path / f"{dtype}.gguf", dtype=dtype)).tensors
        for dtype in ("q4_1", "q4_0")
    )
    assert {name: t.type.name for name, t in same.items()} == types
    assert other["output.weight"].type.name == "Q4_0"


def rewritten_head(path: Path, out: Path, model: Any) -> Path:
    """Copy a file with its output matrix in Q8_0."""
    reader, writer = gguf.GGUFReader(path), gguf.GGUFWriter(out, "llama")
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            kinds = [*field.types, None]
            writer.add_key_value(key, field.contents(), kinds[0], kinds[1])
    for tensor in reader.tensors:
        values, kind = tensor.data, tensor.tensor_type
        if tensor.name == "output.weight":
            kind = Quantization.Q8_0
            values = gguf.quants.quantize(model.lm_head.weight.detach().numpy(), kind)
        writer.add_tensor(tensor.name, np.array(values), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def test_rows_that_are_not_whole_blocks_become_float16(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    random_llama(intermediate_size=50).save_pretrained(tmp_path / "hf")
    tensors = read_header(export(tmp_path / "hf", tmp_path / "m.gguf", dtype="q8_0")).tensors
    assert tensors["blk.0.ffn_down.weight"].type.name == "F16"
    assert tensors["blk.0.ffn_up.weight"].type.name == "Q8_0"
    assert "rows of 50 numbers are not whole blocks" in caplog.text


@pytest.mark.parametrize("form", ["meta", "gguf", "hf"])
def test_every_form_of_a_model_becomes_the_same_file(form: str, tmp_path: Path) -> None:
    model = random_llama(num_key_value_heads=3)
    model.save_pretrained(tmp_path / "hf")
    write_gguf(tmp_path / "gguf", model, Quantization.F32)
    write_meta(tmp_path / "meta", model, parts=1)
    export(tmp_path / form, tmp_path / "m.gguf", dtype="f32")
    torch.testing.assert_close(
        logits(load_model(tmp_path / "m.gguf").model), logits(model), atol=1e-4, rtol=1e-4
    )


def test_the_gguf_library_reads_everything_back(source: Path, tmp_path: Path) -> None:
    reader = gguf.GGUFReader(export(source, tmp_path / "m.gguf", dtype="q4_0"))
    found = {key: field.contents() for key, field in reader.fields.items()}
    expected = {
        "general.architecture": "llama", "general.type": "model", "general.name": "hf",
        "general.file_type": 2, "general.quantization_version": 2, "llama.vocab_size": 271,
        "llama.context_length": 128, "llama.embedding_length": 96, "llama.block_count": 2,
        "llama.feed_forward_length": 64, "llama.attention.head_count": 3, "llama.attention.head_count_kv": 1,
        "llama.attention.key_length": 32, "llama.attention.value_length": 32,
        "llama.rope.dimension_count": 32, "llama.rope.freq_base": 10000.0,
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected
    assert found["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)
    state = random_llama().state_dict()
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert len(tensors) == len(state)
    theirs = gguf.quants.dequantize(tensors["blk.1.attn_q.weight"].data, Quantization.Q4_0)
    rows = interleaved_rows(state["model.layers.1.self_attn.q_proj.weight"], head_dim=32).numpy()
    blocks = gguf.quants.quantize(rows, Quantization.Q4_0)
    assert np.array_equal(theirs, gguf.quants.dequantize(blocks, Quantization.Q4_0))
    assert np.array_equal(tensors["output_norm.weight"].data, state["model.norm.weight"].numpy())


@pytest.mark.parametrize("dtype", ["f16", "q4_1"])
def test_values_beyond_float16_are_refused_and_nothing_stays(dtype: str, tmp_path: Path) -> None:
    model = random_llama()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] = 1e6
    model.save_pretrained(tmp_path / "hf")
    with pytest.raises(FormatError, match=r"`layers.1.feed_forward.up_proj.weight` has values up to 1e\+06"):
        export(tmp_path / "hf", tmp_path / "out" / "m.gguf", dtype=dtype)
    assert list((tmp_path / "out").iterdir()) == []
    assert torch.isfinite(
        weights(export(tmp_path / "hf", tmp_path / "m.gguf", dtype="bf16"))["norm.weight"]
    ).all()


def test_an_existing_file_and_an_output_inside_the_source_are_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_text("mine")
    with pytest.raises(RunError, match="exists already"):
        export(source, tmp_path / "m.gguf")
    with pytest.raises(UsageError, match="inside the source"):
        export(source, source / "m.gguf")
    assert (tmp_path / "m.gguf").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_named(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        export(source, tmp_path / "file" / "m.gguf")


def test_too_little_room_is_seen_before_anything_is_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 0}))
    with pytest.raises(ResourceError, match="writing the model needs"):
        export(source, tmp_path / "out" / "m.gguf")
    assert not (tmp_path / "out").exists()


def test_a_disk_that_fills_up_is_one_clear_error(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.gguf"

    def cap() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    command = [sys.executable, "-m", "criadero", "export", source, "gguf", out, "--dtype", "f32"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=cap)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    assert errors == [
        f"error: `{out}` could not be written: File too large",
        "hint: free some space or choose a folder on another disk",
    ]
    assert list(tmp_path.iterdir()) == [source]


def test_a_kill_in_the_middle_leaves_nothing_under_the_name(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "m.gguf"
    for moment in ("tensor", "file-written", "file-synced"):
        (ended,) = run_until_end(export_and_die, 1, source, out, moment)
        assert ended.exit_code == -signal.SIGKILL
        assert not out.exists()
    assert weights(export(source, out, dtype="f32")).keys() == weights(source).keys()


def export_and_die(mesh: Any, source: Path, out: Path, moment: str) -> None:
    """Be killed at a moment of `criadero.files`, or at the fifth tensor."""
    calls = iter(range(100))
    real = gguf_write._append

    def die(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    gguf_write._append = lambda *values: die() if next(calls) == 4 and moment == "tensor" else real(*values)
    files.on_fault_point = lambda name: die() if name == moment else None
    export(source, out, dtype="f32")
