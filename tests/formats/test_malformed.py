"""Malformed files: our error class, no crash, no large allocation."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf.constants import GGMLQuantizationType as Quantization

from criadero.errors import CriaderoError, FormatError
from criadero.formats.gguf_header import read_header as read_gguf_header
from criadero.formats.load import load_model, load_tokenizer, open_model
from criadero.formats.safetensors_file import read_header
from criadero.tokenizer.train import TokenizerTrainConfig, train
from foreign_models import random_llama, write_gguf


def safetensors_bytes(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(start: int, stop: int, *, dtype: str = "F32", shape: list[Any] | None = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [2] if shape is None else shape, "data_offsets": [start, stop]}


SAFETENSORS = {
    "empty": b"",
    "shorter than the length": b"\x01\x00\x00",
    "header of 2^63 bytes": safetensors_bytes({}, length=1 << 63),
    "header of 2^64 - 1 bytes": safetensors_bytes({}, length=(1 << 64) - 1),
    "header beyond the file": safetensors_bytes({}, length=1000),
    "header of 0 bytes": safetensors_bytes(b""),
    "not JSON": safetensors_bytes(b"{nonsense"),
    "not UTF-8": safetensors_bytes(b'{"\xff\xfe": 1}'),
    "a list": safetensors_bytes([]),
    "deep JSON": safetensors_bytes(b"[" * 200_000),
    "deep objects": safetensors_bytes(b'{"a":' * 100_000),
    "huge integer": safetensors_bytes(b'{"a": {"dtype": "F32", "shape": [' + b"9" * 5000 + b"]}}"),
    "duplicate key": safetensors_bytes(
        f'{{"a": {json.dumps(entry(0, 8))}, "a": {json.dumps(entry(0, 8))}}}'.encode(), bytes(8)
    ),
    "overlap": safetensors_bytes({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)),
    "gap": safetensors_bytes({"a": entry(0, 8), "b": entry(12, 20)}, bytes(20)),
    "negative offset": safetensors_bytes({"a": entry(-8, 0)}, bytes(8)),
    "negative shape": safetensors_bytes({"a": entry(0, 8, shape=[-2])}, bytes(8)),
    "backward range": safetensors_bytes({"a": entry(8, 0)}, bytes(8)),
    "product overflows": safetensors_bytes({"a": entry(0, 8, shape=[1 << 62, 1 << 62])}, bytes(8)),
    "many dimensions": safetensors_bytes({"a": entry(0, 4, shape=[1] * 50)}, bytes(4)),
    "shape of booleans": safetensors_bytes({"a": entry(0, 4, shape=[True])}, bytes(4)),
    "shape of strings": safetensors_bytes({"a": entry(0, 4, shape=["2"])}, bytes(4)),
    "shape and range differ": safetensors_bytes({"a": entry(0, 12)}, bytes(12)),
    "unknown dtype": safetensors_bytes({"a": entry(0, 8, dtype="F99")}, bytes(8)),
    "integer dtype": safetensors_bytes({"a": entry(0, 8, dtype="I32")}, bytes(8)),
    "entry is a number": safetensors_bytes({"a": 3}),
    "entry lacks keys": safetensors_bytes({"a": {"dtype": "F32"}}),
    "data cut": safetensors_bytes({"a": entry(0, 8)}, bytes(7)),
    "data too long": safetensors_bytes({"a": entry(0, 8)}, bytes(9)),
}


@pytest.mark.parametrize("fault", SAFETENSORS)
def test_a_malformed_safetensors_file_is_refused(fault: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(SAFETENSORS[fault])
    with pytest.raises(FormatError, match="safetensors"):
        read_header(tmp_path / "model.safetensors")


def gguf_bytes(keys: list[bytes], tensors: list[bytes], *, counts: tuple[int, int] | None = None) -> bytes:
    tensor_count, key_count = counts or (len(tensors), len(keys))
    head = b"GGUF" + struct.pack("<IQQ", 3, tensor_count, key_count)
    body = head + b"".join(keys) + b"".join(tensors)
    return body + bytes(-len(body) % 32) + bytes(256)


def text(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(value) if length is None else length) + value


def key(name: bytes, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def tensor(
    name: bytes, widths: list[int], *, kind: int = 0, offset: int = 0, dims: int | None = None
) -> bytes:
    count = len(widths) if dims is None else dims
    return text(name) + struct.pack(f"<I{len(widths)}QIQ", count, *widths, kind, offset)


HUGE = (1 << 63) - 1
GGUF = {
    "only the magic": b"GGUF",
    "version 99": b"GGUF" + struct.pack("<IQQ", 99, 0, 0),
    "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(64),
    "tensor count of 2^63": gguf_bytes([], [], counts=(HUGE, 0)),
    "key count of 2^63": gguf_bytes([], [], counts=(0, HUGE)),
    "key of 2^63 bytes": gguf_bytes([text(b"a", HUGE)], []),
    "key not UTF-8": gguf_bytes([key(b"\xff", 4, bytes(4))], []),
    "string of 2^63 bytes": gguf_bytes([key(b"a", 8, text(b"x", HUGE))], []),
    "string beyond the file": gguf_bytes([key(b"a", 8, text(b"x", 5000))], []),
    "unknown type": gguf_bytes([key(b"a", 77, bytes(8))], []),
    "array of 2^63 numbers": gguf_bytes([key(b"a", 9, struct.pack("<IQ", 4, HUGE))], []),
    "array of 2^61 + 1 numbers": gguf_bytes([key(b"a", 9, struct.pack("<IQ", 10, (1 << 61) + 1))], []),
    "array of 2^63 strings": gguf_bytes([key(b"a", 9, struct.pack("<IQ", 8, HUGE))], []),
    "nested arrays": gguf_bytes([key(b"a", 9, struct.pack("<IQ", 9, 1) * 20)], []),
    "array of unknown type": gguf_bytes([key(b"a", 9, struct.pack("<IQ", 77, 1))], []),
    "duplicate key": gguf_bytes([key(b"a", 4, bytes(4))] * 2, []),
    "duplicate tensor": gguf_bytes([], [tensor(b"a", [8]), tensor(b"a", [8], offset=32)]),
    "no dimensions": gguf_bytes([], [tensor(b"a", [])]),
    "2^31 dimensions": gguf_bytes([], [tensor(b"a", [8], dims=1 << 31)]),
    "product overflows": gguf_bytes([], [tensor(b"a", [1 << 33, 1 << 33])]),
    "width of zero": gguf_bytes([], [tensor(b"a", [0])]),
    "part of a block": gguf_bytes([], [tensor(b"a", [33], kind=8)]),
    "unknown quantisation": gguf_bytes([], [tensor(b"a", [32], kind=4)]),
    "quantisation 2^31": gguf_bytes([], [tensor(b"a", [32], kind=1 << 31)]),
    "offset beyond the file": gguf_bytes([], [tensor(b"a", [8], offset=1 << 20)]),
    "offset that wraps around": gguf_bytes([], [tensor(b"a", [8], offset=(1 << 64) - 32)]),
    "offset not aligned": gguf_bytes([], [tensor(b"a", [8], offset=5)]),
    "overlap": gguf_bytes([], [tensor(b"a", [16]), tensor(b"b", [16], offset=32)]),
    "alignment 0": gguf_bytes([key(b"general.alignment", 4, bytes(4))], []),
    "alignment is a string": gguf_bytes([key(b"general.alignment", 8, text(b"32"))], []),
    "alignment is true": gguf_bytes([key(b"general.alignment", 7, b"\x01")], []),
}


@pytest.mark.parametrize("fault", GGUF)
def test_a_malformed_gguf_file_is_refused(fault: str, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(GGUF[fault])
    with pytest.raises(FormatError, match=r"m\.gguf"):
        read_gguf_header(tmp_path / "m.gguf")


def test_a_well_formed_header_passes(tmp_path: Path) -> None:
    keys = [
        key(b"a", 4, struct.pack("<I", 7)),
        key(b"b", 9, struct.pack("<IQ", 5, 2) + struct.pack("<2i", 1, -2)),
    ]
    (tmp_path / "m.gguf").write_bytes(
        gguf_bytes(keys, [tensor(b"t", [8]), tensor(b"u", [32], kind=8, offset=32)])
    )
    header = read_gguf_header(tmp_path / "m.gguf")
    assert header.metadata["a"] == 7
    assert header.metadata["b"].tolist() == [1, -2]
    assert header.tensors["u"].size_bytes == 34


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sharded Hugging Face model and GGUF files with both kinds of tokenizer, to be damaged in copies."""
    folder = tmp_path_factory.mktemp("saved")
    model = random_llama(num_hidden_layers=1, hidden_size=32, num_attention_heads=2, intermediate_size=32)
    model.save_pretrained(folder / "hf", max_shard_size="20KB")
    write_gguf(folder / "q8_0.gguf", model, Quantization.Q8_0)
    write_gguf(folder / "q4_1.gguf", model, Quantization.Q4_1, vocabulary="gpt2")
    load_tokenizer(folder / "q4_1.gguf").save(folder / "hf")
    return folder


def mixed_kinds(name: str) -> Quantization:
    """A kind of blocks for each matrix; 256 columns, as K-quants need, are in `ffn_down` only."""
    layer = int(name.split(".")[1]) if name.startswith("blk.") else 0
    if "ffn_down" in name:
        return [
            Quantization.Q2_K,
            Quantization.Q3_K,
            Quantization.Q4_K,
            Quantization.Q5_K,
            Quantization.Q6_K,
        ][layer]
    kinds = [Quantization.Q4_0, Quantization.Q4_1, Quantization.Q5_0, Quantization.Q5_1, Quantization.Q8_0]
    return kinds[(layer + len(name)) % len(kinds)]


def save_pieces(folder: Path) -> None:
    """Write the smallest SentencePiece model with byte fallback."""
    train({"text": ["the hi other there this then"] * 20}, folder, TokenizerTrainConfig(vocab_size=275))


def change_index(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "model.safetensors.index.json"
        index = json.loads(path.read_text())
        change(index)
        path.write_text(json.dumps(index))

    return damage


FOLDERS: dict[str, Callable[[Path], Any]] = {
    "config is not JSON": lambda f: (f / "config.json").write_text("{"),
    "config is a list": lambda f: (f / "config.json").write_text("[]"),
    "config is deep": lambda f: (f / "config.json").write_text("[" * 200_000),
    "config is binary": lambda f: (f / "config.json").write_bytes(bytes(range(256))),
    "config is huge": lambda f: (f / "config.json").write_text(" " * (2 << 20)),
    "index is not JSON": lambda f: (f / "model.safetensors.index.json").write_text("{"),
    "index is empty": lambda f: (f / "model.safetensors.index.json").write_text("{}"),
    "index leads out": change_index(lambda i: i["weight_map"].update(x="../../secret.safetensors")),
    "index is absolute": change_index(lambda i: i["weight_map"].update(x="/etc/passwd")),
    "index names a pickle": change_index(lambda i: i["weight_map"].update(x="pytorch_model.bin")),
    "index names a number": change_index(lambda i: i["weight_map"].update(x=3)),
    "index names nothing": change_index(lambda i: i["weight_map"].update(x="absent.safetensors")),
    "index adds a tensor": change_index(
        lambda i: i["weight_map"].update(x=i["weight_map"]["lm_head.weight"])
    ),
    "a shard is missing": lambda f: sorted(f.glob("model-*.safetensors"))[0].unlink(),
    "a shard is cut": lambda f: cut(sorted(f.glob("model-*.safetensors"))[0]),
    "weights are missing": lambda f: (f / "model.safetensors.index.json").unlink(),
    "tokenizer is not JSON": lambda f: (f / "tokenizer.json").write_text("{"),
    "tokenizer is no model": lambda f: (f / "tokenizer.model").write_bytes(b"\xff" * 100),
    "tokenizer is empty": lambda f: (f / "tokenizer.model").write_bytes(b""),
    "tokenizer config is a list": lambda f: (f / "tokenizer_config.json").write_text("{"),
    "template is not text": lambda f: (f / "chat_template.jinja").write_bytes(b"\xff"),
}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("fault", FOLDERS)
def test_a_damaged_folder_is_refused(fault: str, saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved / "hf", tmp_path / "hf")
    FOLDERS[fault](tmp_path / "hf")
    with pytest.raises(CriaderoError):
        load_model(tmp_path / "hf")


@pytest.mark.parametrize("length", [4, 23, 24, 100, 1000, -40])
def test_a_truncated_gguf_file_is_refused(length: int, saved: Path, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes((saved / "q8_0.gguf").read_bytes()[:length])
    with pytest.raises(FormatError):
        open_model(tmp_path / "m.gguf")


def test_2000_random_mutations_of_each_kind_raise_nothing_but_our_errors(saved: Path, tmp_path: Path) -> None:
    """Nor do they ever ask for 256 MB more than a process has that read the files when they were whole."""
    work = tmp_path / "work"
    shutil.copytree(saved, work)
    model = random_llama(num_hidden_layers=1, hidden_size=32, num_attention_heads=2, intermediate_size=32)
    model.save_pretrained(work / "weights")
    save_pieces(work / "pieces")
    load_tokenizer(work / "q4_1.gguf").save(work / "bytes")
    mixed = random_llama(num_hidden_layers=5, hidden_size=32, num_attention_heads=2, intermediate_size=256)
    write_gguf(work / "mixed.gguf", mixed, mixed_kinds)
    command = [sys.executable, str(Path(__file__).with_name("mutate.py")), str(work), "2000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert {kind: count for kind, count in found["refused"].items() if count < 300} == {}
    assert found["grown_bytes"] < 100 << 20
