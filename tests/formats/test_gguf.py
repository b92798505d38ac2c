"""GGUF files: every quantisation that is read, config, vocabulary, rotary scaling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf.constants import GGMLQuantizationType as Quantization

from criadero.errors import FormatError
from criadero.formats.gguf import open_file
from criadero.formats.gguf_header import read_header
from criadero.formats.load import load_model, load_tokenizer
from criadero.model.quantized import QuantizedTensor
from foreign_models import dequantised, gguf_weights, logits, random_llama, write_gguf

READ = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]
BLOCKS = READ[3:]


@pytest.mark.parametrize("name", READ)
def test_logits_equal_transformers_on_the_dequantised_weights(name: str, tmp_path: Path) -> None:
    model, path = random_llama(), tmp_path / "m.gguf"
    write_gguf(path, model, Quantization[name])
    expected = logits(dequantised(model, Quantization[name]))
    torch.testing.assert_close(logits(load_model(path).model), expected, atol=1e-4, rtol=1e-4)
    kept = {"F32": torch.float32, "BF16": torch.bfloat16}.get(name, torch.float16)
    assert open_file(path).dtype == kept


@pytest.mark.parametrize("name", BLOCKS)
def test_quantised_matrices_kept_as_they_are_equal_the_dequantised_model(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(path, random_llama(), Quantization[name])
    plain, kept = load_model(path).model, load_model(path, keep_quantized=True).model
    assert open_file(path).is_quantized
    for parameter_name, expected in plain.named_parameters():
        found = kept.get_parameter(parameter_name)
        assert not found.requires_grad
        assert isinstance(found, QuantizedTensor) == (expected.ndim == 2)
        values = found.dequantize() if isinstance(found, QuantizedTensor) else found
        assert torch.equal(values, expected.data)  # the rows of q and k too
    torch.testing.assert_close(logits(kept), logits(plain))


def test_a_model_of_k_quants_is_read_both_ways(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    model = random_llama(hidden_size=256, intermediate_size=256, num_attention_heads=4)
    write_gguf(path, model, lambda name: Quantization.Q2_K if "ffn" in name else Quantization.Q4_K)
    plain, kept = load_model(path).model, load_model(path, keep_quantized=True).model
    for name, expected in plain.named_parameters():
        found = kept.get_parameter(name)
        values = found.dequantize() if isinstance(found, QuantizedTensor) else found.data
        # The blocks are of random bytes, so that some scales are not finite.
        torch.testing.assert_close(values, expected.data, rtol=0, atol=0, equal_nan=True)
    assert kept.layers[0].feed_forward.down_proj.weight.group == 16
    assert kept.layers[0].attention.q_proj.weight.group == 32


def test_floats_are_not_quantised_when_asked_to_keep(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", random_llama(), Quantization.F16)
    model = load_model(tmp_path / "m.gguf", keep_quantized=True).model
    assert not any(isinstance(weight, QuantizedTensor) for weight in model.parameters())
    assert not open_file(tmp_path / "m.gguf").is_quantized


def test_the_config_comes_from_the_metadata(tmp_path: Path) -> None:
    model = random_llama(
        rope_parameters={"rope_type": "default", "rope_theta": 1e5}, tie_word_embeddings=True
    )
    write_gguf(tmp_path / "m.gguf", model, Quantization.F32)
    loaded = load_model(tmp_path / "m.gguf")
    assert loaded.config.rope_theta == 1e5
    assert loaded.config.norm_eps == 1e-5
    assert loaded.config.num_kv_heads == 1
    assert loaded.config.max_seq_len == 128
    assert loaded.config.tie_embeddings
    torch.testing.assert_close(logits(loaded.model), logits(model), atol=1e-4, rtol=1e-4)


def test_a_sentencepiece_vocabulary_becomes_a_tokenizer(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", random_llama(), Quantization.Q8_0)
    tokenizer = load_tokenizer(tmp_path / "m.gguf")
    names = [tokenizer.piece(token_id) for token_id in tokenizer.encode("hi the \u00e9", bos=True)]
    assert names == ["<s>", "\u2581hi", "\u2581the", "\u2581", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(tokenizer.encode("hi the \u00e9")) == "hi the \u00e9"


def test_a_byte_level_vocabulary_becomes_a_tokenizer(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", random_llama(), Quantization.Q8_0, vocabulary="gpt2")
    tokenizer = load_tokenizer(tmp_path / "m.gguf")
    names = [tokenizer.piece(token_id) for token_id in tokenizer.encode("hi the 12", eos=True)]
    assert names == ["hi", "\u0120the", "\u0120", "1", "2", "<|im_end|>"]
    assert 270 not in tokenizer.encode("<|im_end|>")
    assert tokenizer.bos_id == 269


def test_a_chat_template_is_recognised_or_reported_and_never_run(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", random_llama(), Quantization.Q8_0, vocabulary="gpt2")
    loaded = load_model(tmp_path / "m.gguf")
    assert loaded.chat_template is None
    assert loaded.has_unknown_template


@pytest.mark.parametrize(("factor", "original"), [(8.0, 64), (32.0, 8192)])
def test_llama3_rotary_scaling_is_found_from_its_frequencies(
    factor: float, original: int, tmp_path: Path
) -> None:
    rope = {"rope_type": "llama3", "rope_theta": 5e5, "factor": factor, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": original}  # fmt: skip
    model = random_llama(rope_parameters=rope)
    plain = 1.0 / 5e5 ** (torch.arange(0, 32, 2).float() / 32)
    path = tmp_path / "m.gguf"
    rewritten(path, model, {"rope_freqs.weight": (plain / model.model.rotary_emb.inv_freq).numpy()})
    config = open_file(path).config
    assert config.rope_scaling is not None
    assert (config.rope_scaling.factor, config.rope_scaling.original_max_seq_len) == (factor, original)
    tokens_BT = torch.randint(0, 271, (2, 127), generator=torch.Generator().manual_seed(1))
    found, expected = logits(load_model(path).model, tokens_BT), logits(model, tokens_BT)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)


def test_another_rotary_scaling_is_refused(tmp_path: Path) -> None:
    rewritten(
        tmp_path / "m.gguf", random_llama(), {"rope_freqs.weight": np.linspace(1, 9, 16, dtype=np.float32)}
    )
    with pytest.raises(FormatError, match="not a Llama-3 rotary scaling"):
        open_file(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("llama.attention.sliding_window", 4096, "sliding_window"),
        ("llama.expert_count", 8, "expert_count"),
        ("llama.rope.scaling.type", "linear", "scaling.type"),
        ("split.count", 3, "split"),
        ("general.alignment", 3, "alignment"),
    ],
)
def test_what_would_change_the_computation_is_refused(
    key: str, value: Any, message: str, tmp_path: Path
) -> None:
    rewritten(tmp_path / "m.gguf", random_llama(), {}, extra={key: value})
    with pytest.raises(FormatError, match=message):
        open_file(tmp_path / "m.gguf")


def test_a_quantisation_that_is_not_read_is_named(tmp_path: Path) -> None:
    blocks = np.zeros((271, 54), dtype=np.uint8)  # one TQ1_0 block of 256 a row
    rewritten(tmp_path / "m.gguf", random_llama(), {"extra.weight": (blocks, Quantization.TQ1_0)})
    with pytest.raises(FormatError, match="TQ1_0"):
        open_file(tmp_path / "m.gguf")


def test_the_header_scan_agrees_with_the_gguf_library(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(path, random_llama(), Quantization.Q5_1)
    header, reader = read_header(path), gguf.GGUFReader(path)
    assert set(header.metadata) == {name for name in reader.fields if not name.startswith("GGUF.")}
    assert header.metadata["tokenizer.ggml.tokens"] == reader.fields["tokenizer.ggml.tokens"].contents()
    for theirs in reader.tensors:
        ours = header.tensors[theirs.name]
        assert ours.type == theirs.tensor_type
        assert (ours.start_bytes, ours.size_bytes) == (theirs.data_offset, theirs.n_bytes)
        assert ours.shape == tuple(reversed(theirs.shape.tolist()))


def rewritten(path: Path, model: Any, tensors: dict[str, Any], extra: dict[str, Any] | None = None) -> None:
    """Write a float32 file with further tensors and keys."""
    writer = gguf.GGUFWriter(path, "llama")
    config = model.config
    numbers = {
        "context_length": config.max_position_embeddings, "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers, "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
    }  # fmt: skip
    for key, value in numbers.items():
        writer.add_uint32(f"llama.{key}", value)
    writer.add_float32("llama.rope.freq_base", config.rope_parameters["rope_theta"])
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", config.rms_norm_eps)
    for key, value in (extra or {}).items():
        (writer.add_string if isinstance(value, str) else writer.add_uint32)(key, value)
    for name, weight in gguf_weights(model).items():
        writer.add_tensor(name, weight.numpy())
    for name, value in tensors.items():
        array, kind = value if isinstance(value, tuple) else (value, None)
        writer.add_tensor(name, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
