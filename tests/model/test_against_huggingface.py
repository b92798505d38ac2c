"""Logits equal those of transformers' LlamaForCausalLM with the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from criadero.model.config import ModelConfig, RopeScaling
from criadero.model.init import initialize
from criadero.model.transformer import Transformer
from naive_llama import meta_weights, naive_logits

RENAMED = {
    "embedding": "model.embed_tokens",
    "layers": "model.layers",
    "norm": "model.norm",
    "output": "lm_head",
    "attention": "self_attn",
    "attention_norm": "input_layernorm",
    "feed_forward": "mlp",
    "feed_forward_norm": "post_attention_layernorm",
}
SIZES = {
    "vocab_size": 311,
    "dim": 48,
    "num_layers": 3,
    "num_heads": 6,
    "hidden_dim": 100,
    "max_seq_len": 1024,
}
LLAMA_3 = RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_seq_len=128)
CONFIGS = {
    "multi-head": ModelConfig(**SIZES),
    "multi-head tied": ModelConfig(**SIZES, tie_embeddings=True, norm_eps=1e-5),
    "grouped": ModelConfig(**SIZES, num_kv_heads=2, rope_theta=1e6),
    "grouped tied": ModelConfig(**SIZES, num_kv_heads=3, head_dim=10, tie_embeddings=True),
    "llama 3": ModelConfig(**SIZES, num_kv_heads=1, rope_theta=500000.0, rope_scaling=LLAMA_3, norm_eps=1e-5),
}


def random_model(config: ModelConfig) -> Transformer:
    """Weights of variance 1/width, so that attention is far from uniform and logits are of order one."""
    model = Transformer(config)
    initialize(model, 10)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.div_(parameter.std() * parameter.shape[1] ** 0.5)
            else:
                parameter.copy_(torch.linspace(0.5, 1.5, len(parameter)))
        model.embedding.weight.mul_(config.dim**0.5)
        if config.tie_embeddings:
            model.norm.weight.div_(config.dim**0.5)
    return model


def rope_parameters(config: ModelConfig) -> dict[str, object]:
    scaling = config.rope_scaling
    if scaling is None:
        return {"rope_type": "default", "rope_theta": config.rope_theta}
    return {
        "rope_type": "llama3",
        "rope_theta": config.rope_theta,
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_max_seq_len,
    }


def same_in_transformers(model: Transformer) -> LlamaForCausalLM:
    config = model.config
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.dim,
            intermediate_size=config.hidden_dim,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            max_position_embeddings=config.max_seq_len,
            rms_norm_eps=config.norm_eps,
            rope_parameters=rope_parameters(config),
            tie_word_embeddings=config.tie_embeddings,
        )
    )
    weights = {
        ".".join(RENAMED.get(word, word) for word in name.split(".")): parameter.detach()
        for name, parameter in model.named_parameters()
    }
    if config.tie_embeddings:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    theirs.load_state_dict(weights, strict=True)
    return theirs.eval()


def tokens_of(config: ModelConfig, *, batch: int, length: int) -> Tensor:
    return torch.randint(config.vocab_size, (batch, length), generator=torch.Generator().manual_seed(11))


@pytest.mark.parametrize("length", [5, 256])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_float32_logits_equal_transformers_to_1e_4(config: ModelConfig, length: int):
    model, tokens_BT = random_model(config), tokens_of(config, batch=2, length=length)
    with torch.no_grad():
        ours, theirs = model(tokens_BT), same_in_transformers(model)(tokens_BT).logits
    assert theirs.std() > 0.3
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["multi-head", "grouped"])
def test_error_at_1024_tokens_is_at_most_half_again_that_of_transformers(name: str):
    """Against a float64 run of transformers, and against the paper's formulas in float64 throughout."""
    config = CONFIGS[name]
    model, tokens_BT = random_model(config), tokens_of(config, batch=1, length=1024)
    theirs = same_in_transformers(model)
    formulas_TV = naive_logits(
        meta_weights(model, head_dim=config.head_dim), tokens_BT[0], num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads, eps=config.norm_eps, theta=config.rope_theta,
    )  # fmt: skip
    with torch.no_grad():
        ours_TV, theirs_TV = model(tokens_BT)[0].double(), theirs(tokens_BT).logits[0].double()
        exact_TV = theirs.double()(tokens_BT).logits[0]
    for reference_TV in (exact_TV, formulas_TV):
        our_error, their_error = ((x - reference_TV).square().mean().sqrt() for x in (ours_TV, theirs_TV))
        assert 0 < our_error <= 1.5 * their_error
        our_worst, their_worst = ((x - reference_TV).abs().max() for x in (ours_TV, theirs_TV))
        assert our_worst <= 1.5 * their_worst
