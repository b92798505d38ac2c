"""A real model made by others: SmolLM2-135M-Instruct, from its GGUF file, against transformers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from criadero.formats.gguf_header import read_header
from criadero.formats.load import LoadedModel, load_model
from criadero.model.quantized import QuantizedTensor
from foreign_models import GGUF_NAMES, halves, logits
from packaged import packaged_file

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("smollm2")]

PROMPTS = ("The capital of France is", "<|im_start|>user\nWhat is 2+2?<|im_end|>\n<|im_start|>assistant\n")
SIZES = {
    "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
    "rope_theta": 100000.0, "tie_word_embeddings": True,
    "bos_token_id": None, "eos_token_id": None,  # so that generating does not stop early
}  # fmt: skip


@pytest.fixture(scope="module")
def file() -> Path:
    return packaged_file("smollm2-gguf")


@pytest.fixture(scope="module")
def ours(file: Path) -> LoadedModel:
    return load_model(file)


@pytest.fixture(scope="module")
def theirs(file: Path) -> LlamaForCausalLM:
    """transformers' own model on the dequantised weights, rows of q and k put in order one by one."""
    config = LlamaConfig(**SIZES)
    model = LlamaForCausalLM.from_pretrained(
        None, config=config, state_dict=dict(weights(file)), dtype=torch.float32
    )
    return model.eval()


def weights(file: Path) -> Iterator[tuple[str, Tensor]]:
    ends = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
    parts = {theirs: ours for ours, theirs in GGUF_NAMES.items()}
    for name, tensor in read_header(file).tensors.items():
        raw = np.fromfile(file, dtype=np.uint8, count=tensor.size_bytes, offset=tensor.start_bytes)
        values = gguf.quants.dequantize(raw.reshape(*tensor.shape[:-1], -1), tensor.type)
        weight = torch.from_numpy(np.array(values, dtype=np.float32))
        stem = name.removesuffix(".weight")
        if stem in ends:
            yield f"{ends[stem]}.weight", weight
            continue
        _, layer, part = stem.split(".")
        heads = {"attn_q": 9, "attn_k": 3}.get(part)
        yield f"model.layers.{layer}.{parts[part]}.weight", halves(weight, heads) if heads else weight


@pytest.mark.parametrize("length", [5, 256])
def test_logits_equal_transformers(length: int, ours: LoadedModel, theirs: LlamaForCausalLM) -> None:
    tokens_BT = torch.randint(0, 49152, (1, length), generator=torch.Generator().manual_seed(length))
    difference = (logits(ours.model, tokens_BT) - logits(theirs, tokens_BT)).abs().max().item()
    assert difference <= 1e-4


class GrowingCache:
    """Keys and values of all earlier tokens, joined anew at each step."""

    def __init__(self) -> None:
        self.held: dict[int, tuple[Tensor, Tensor]] = {}

    def update(self, layer_index: int, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor]:
        if layer_index in self.held:
            k, v = self.held[layer_index]
            k_BKTE, v_BKTE = torch.cat((k, k_BKTE), dim=2), torch.cat((v, v_BKTE), dim=2)
        self.held[layer_index] = k_BKTE, v_BKTE
        return k_BKTE, v_BKTE


@torch.no_grad()
def greedy(model: torch.nn.Module, ids: list[int], count: int) -> list[int]:
    cache, found, fed = GrowingCache(), list(ids), 0
    for _ in range(count):
        new = torch.tensor([found[fed:]])
        positions = torch.arange(fed, len(found)).unsqueeze(0)
        fed = len(found)
        found.append(int(model(new, positions_BT=positions, cache=cache)[0, -1].argmax()))
    return found[len(ids) :]


def test_64_greedy_tokens_equal_transformers(ours: LoadedModel, theirs: LlamaForCausalLM) -> None:
    assert ours.tokenizer is not None
    ids = ours.tokenizer.encode("The capital of France is")
    settings = GenerationConfig(max_new_tokens=64, do_sample=False, eos_token_id=None, pad_token_id=2)
    with torch.no_grad():
        expected = theirs.generate(torch.tensor([ids]), generation_config=settings)[0, len(ids) :].tolist()
    assert len(expected) == 64
    assert greedy(ours.model, ids, 64) == expected
    assert ours.tokenizer.decode(expected).startswith(" Paris")


def test_kept_quantised_the_model_takes_the_memory_of_the_file(file: Path, ours: LoadedModel) -> None:
    kept = load_model(file, keep_quantized=True).model
    parts = [weight for weight in kept.parameters() if isinstance(weight, QuantizedTensor)]
    held = sum(weight.size_bytes for weight in parts)
    held += sum(weight.nbytes for weight in kept.parameters() if not isinstance(weight, QuantizedTensor))
    tensors = sum(tensor.size_bytes for tensor in read_header(file).tensors.values())
    assert len(parts) == 30 * 7 + 1
    assert held <= 1.02 * tensors  # a minimum is kept where the file has blocks without one
    tokens_BT = torch.tensor([[504, 3575, 282, 4649, 314]])
    torch.testing.assert_close(logits(kept, tokens_BT), logits(ours.model, tokens_BT), atol=1e-4, rtol=1e-4)


def test_the_config_is_the_published_one(ours: LoadedModel) -> None:
    config = ours.config
    assert (config.dim, config.hidden_dim, config.num_layers) == (576, 1536, 30)
    assert (config.num_heads, config.num_kv_heads, config.head_dim) == (9, 3, 64)
    assert (config.rope_theta, config.norm_eps, config.tie_embeddings) == (1e5, 1e-5, True)
    assert sum(parameter.numel() for parameter in ours.model.parameters()) == 134_515_008


def test_ids_are_those_of_the_published_tokenizer(ours: LoadedModel) -> None:
    tokenizer = ours.tokenizer
    assert tokenizer is not None
    assert tokenizer.encode("The capital of France is") == [504, 3575, 282, 4649, 314]
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
    digits = tokenizer.encode("2024")
    assert [tokenizer.decode([token_id]) for token_id in digits] == ["2", "0", "2", "4"]
    for text in ("\u4f60\u597d, na\u00efve  world!\n\tx = 1", "\U0001f937\u200d\u2642\ufe0f"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert not {0, 1, 2} & set(tokenizer.encode("<|im_start|><|im_end|><|endoftext|>"))
    assert ours.chat_template == "smollm2"
