"""Hugging Face folders: what transformers writes runs here, what we write runs in transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from criadero import files
from criadero.errors import FormatError, RunError
from criadero.formats.huggingface import open_folder, save_model
from criadero.formats.huggingface_config import parse_config
from criadero.formats.load import load_model
from criadero.model.config import ModelConfig
from foreign_models import logits, random_llama

LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "grouped": {},
    "multi-head": {"num_key_value_heads": 3},
    "tied": {"tie_word_embeddings": True},
    "llama3 rope": {"rope_parameters": LLAMA3_ROPE},
    "wide heads": {"head_dim": 40, "rms_norm_eps": 1e-3},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_transformers_on_what_it_saved(variant: str, tmp_path: Path) -> None:
    theirs = random_llama(**VARIANTS[variant])
    theirs.save_pretrained(tmp_path)
    tokens_BT = torch.randint(0, 271, (2, 97), generator=torch.Generator().manual_seed(1))
    ours = load_model(tmp_path)
    assert ours.tokenizer is None
    torch.testing.assert_close(logits(ours.model, tokens_BT), logits(theirs, tokens_BT), atol=1e-4, rtol=1e-4)


def test_a_sharded_folder_equals_a_single_file(tmp_path: Path) -> None:
    theirs = random_llama()
    theirs.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    torch.testing.assert_close(logits(load_model(tmp_path).model), logits(theirs), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("max_shard_bytes", [10**9, 100_000])
@pytest.mark.parametrize("variant", ["grouped", "tied", "llama3 rope"])
def test_transformers_loads_what_is_saved(variant: str, max_shard_bytes: int, tmp_path: Path) -> None:
    random_llama(**VARIANTS[variant]).save_pretrained(tmp_path / "theirs")
    ours = load_model(tmp_path / "theirs")
    out = tmp_path / "ours"
    tensors = reversed(list(ours.model.state_dict().items()))
    save_model(tensors, ours.config, None, out, dtype=torch.float32, max_shard_bytes=max_shard_bytes)
    theirs = AutoModelForCausalLM.from_pretrained(out, dtype="auto", attn_implementation="eager").eval()
    assert theirs.dtype == torch.float32
    torch.testing.assert_close(logits(theirs), logits(ours.model), atol=1e-4, rtol=1e-4)
    assert load_model(out).config == ours.config


def test_bfloat16_is_kept_bit_for_bit(tmp_path: Path) -> None:
    random_llama().to(torch.bfloat16).save_pretrained(tmp_path / "theirs")
    stored = open_folder(tmp_path / "theirs")
    assert stored.dtype == torch.bfloat16
    tensors = [(name, tensor.read()) for name, tensor in stored.tensors.items()]
    save_model(tensors, stored.config, None, tmp_path / "ours", dtype=torch.bfloat16)
    again = open_folder(tmp_path / "ours")
    assert all(torch.equal(again.tensors[name].read(), tensor) for name, tensor in tensors)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype="auto").dtype == torch.bfloat16


def test_the_manifest_lists_every_file_with_its_hash(tmp_path: Path) -> None:
    config = small_config()
    save_model(parameters(config), config, None, tmp_path / "m", dtype=torch.float32, inputs={"step": 7})
    manifest = json.loads((tmp_path / "m" / "manifest.json").read_text())
    assert manifest["format_version"] == 1
    assert manifest["inputs"] == {"step": 7}
    written = {path.name for path in (tmp_path / "m").iterdir()} - {"manifest.json"}
    assert set(manifest["files"]) == written
    for name, entry in manifest["files"].items():
        assert entry["sha256"] == files.sha256_file(tmp_path / "m" / name)


def test_a_link_into_a_cache_is_followed(tmp_path: Path) -> None:
    config = small_config()
    save_model(parameters(config), config, None, tmp_path / "m", dtype=torch.float32, max_shard_bytes=2000)
    snapshot = tmp_path / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    for path in (tmp_path / "m").iterdir():
        (snapshot / path.name).symlink_to(path)
    assert load_model(snapshot).config == config


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (lambda ps: ps[:-1], "never came"),
        (lambda ps: [*ps, ps[0]], "a second time"),
        (lambda ps: [*ps, ("layers.9.x.weight", ps[0][1])], "no such tensor"),
        (lambda ps: [(ps[0][0], torch.zeros(3, 3)), *ps[1:]], "expected"),
    ],
)
def test_saving_leaves_nothing_behind_when_tensors_do_not_fit(
    tensors: Any, message: str, tmp_path: Path
) -> None:
    config = small_config()
    with pytest.raises(FormatError, match=message):
        save_model(tensors(parameters(config)), config, None, tmp_path / "m", dtype=torch.float32)
    assert list(tmp_path.iterdir()) == []


def test_saving_refuses_values_beyond_float16(tmp_path: Path) -> None:
    config = small_config()
    tensors = [(name, tensor * 1e6) for name, tensor in parameters(config)]
    with pytest.raises(FormatError, match="beyond float16"):
        save_model(tensors, config, None, tmp_path / "m", dtype=torch.float16)


def test_an_existing_folder_is_not_overwritten(tmp_path: Path) -> None:
    config = small_config()
    with pytest.raises(RunError, match="exists already"):
        save_model(parameters(config), config, None, tmp_path, dtype=torch.float32)


def test_all_tensors_at_fault_are_named_at_once(tmp_path: Path) -> None:
    config = small_config()
    save_model(parameters(config), config, None, tmp_path / "m", dtype=torch.float32)
    values = json.loads((tmp_path / "m" / "config.json").read_text())
    values |= {"intermediate_size": 5, "tie_word_embeddings": True, "vocab_size": 12}
    (tmp_path / "m" / "config.json").write_text(json.dumps(values))
    with pytest.raises(FormatError) as caught:
        open_folder(tmp_path / "m")
    assert str(caught.value).count("  - ") == 7  # 3 matrices in each of 2 layers, and the embedding
    assert "`embedding.weight` is [11, 6], [12, 6] expected" in str(caught.value)


BASE = {"architectures": ["LlamaForCausalLM"], "hidden_size": 6, "num_attention_heads": 3, "vocab_size": 11,
        "intermediate_size": 7, "num_hidden_layers": 2}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"architectures": ["MistralForCausalLM"]},
        {"architectures": None},
        {"quantization_config": {"bits": 4}},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"sliding_window": 4096},
        {"hidden_act": "gelu"},
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}},
        {"rope_scaling": {"rope_type": "llama3"}},
        {"rope_theta": -1.0},
        {"rms_norm_eps": float("nan")},
        {"hidden_size": -6},
        {"hidden_size": "6"},
        {"hidden_size": 1 << 62},
        {"num_hidden_layers": 10**9},
        {"num_key_value_heads": 2},
    ],
)
def test_a_config_this_decoder_does_not_compute_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(FormatError):
        parse_config({**BASE, **change}, tmp_path / "config.json")


def test_keys_that_change_no_computation_are_left_alone(tmp_path: Path) -> None:
    extra = {"auto_map": {"AutoModel": "evil.py"}, "pretraining_tp": 2, "use_cache": True, "my_note": "x"}
    assert parse_config({**BASE, **extra}, tmp_path / "config.json").dim == 6


def test_both_spellings_of_rope_give_one_config(tmp_path: Path) -> None:
    older = {"rope_theta": 5e5, "rope_scaling": {k: v for k, v in LLAMA3_ROPE.items() if k != "rope_theta"}}
    newer = {"rope_parameters": LLAMA3_ROPE}
    path = tmp_path / "config.json"
    assert parse_config({**BASE, **older}, path) == parse_config({**BASE, **newer}, path)
    assert parse_config({**BASE, **newer}, path).rope_theta == 5e5


def small_config() -> ModelConfig:
    return ModelConfig(vocab_size=11, dim=6, num_layers=2, num_heads=3, hidden_dim=7)


def parameters(config: ModelConfig) -> list[tuple[str, torch.Tensor]]:
    from criadero.model.transformer import Transformer

    return list(Transformer(config).state_dict().items())
