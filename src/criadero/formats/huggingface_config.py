"""`config.json` of a Hugging Face LLaMA, in and out.

Entry points: `parse_config` and `config_values`. What the model needs is read into a closed, bounded model;
keys that would change the computation and that this decoder does not do (biases, quantisation, windows,
other rotary scalings) are refused; the rest, which LlamaForCausalLM itself does not compute with, is left
alone. `auto_map` names code to run and is never followed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field

from criadero.config import Config, validate
from criadero.errors import ConfigError, FormatError
from criadero.model.config import ModelConfig, RopeScaling

ARCHITECTURE = "LlamaForCausalLM"
Width = Annotated[int, Field(strict=True, ge=1, le=1 << 20)]
PositiveFloat = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]


class _ConfigJson(Config):
    """The keys of `config.json` that this decoder computes with; absent ones as LlamaConfig has them."""

    model_config = ConfigDict(extra="ignore")

    architectures: list[str] = Field(min_length=1, max_length=1)
    vocab_size: Annotated[int, Field(strict=True, ge=1, le=1 << 24)] = 32000
    hidden_size: Width = 4096
    intermediate_size: Width = 11008
    num_hidden_layers: Annotated[int, Field(strict=True, ge=1, le=4096)] = 32
    num_attention_heads: Width = 32
    num_key_value_heads: Width | None = None
    head_dim: Width | None = None
    max_position_embeddings: Annotated[int, Field(strict=True, ge=1, le=1 << 30)] = 2048
    rms_norm_eps: PositiveFloat = 1e-6
    rope_theta: PositiveFloat = 10000.0
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None
    tie_word_embeddings: bool = False
    # What follows has one value that this decoder computes.
    hidden_act: Literal["silu", "swish"] = "silu"
    attention_bias: Literal[False] = False
    mlp_bias: Literal[False] = False
    quantization_config: None = None
    sliding_window: None = None
    partial_rotary_factor: Annotated[float, Field(ge=1, le=1)] | None = None
    is_decoder: Literal[True] | None = None
    layer_types: list[Literal["full_attention"]] | None = None
    attention_multiplier: None = None
    embedding_multiplier: None = None
    residual_multiplier: None = None
    logits_scaling: None = None
    num_experts: None = None
    num_local_experts: None = None


class _Llama3Scaling(Config):
    """`rope_scaling` of type llama3."""

    model_config = ConfigDict(extra="ignore")

    factor: PositiveFloat
    low_freq_factor: PositiveFloat
    high_freq_factor: PositiveFloat
    original_max_position_embeddings: Annotated[int, Field(strict=True, ge=1, le=1 << 30)]


def parse_config(values: Any, path: Path) -> ModelConfig:
    """Turn the content of a `config.json` into a model config.

    Raises:
        FormatError: naming `path` and every value that is missing, of the wrong kind or not computed here.
    """
    if not isinstance(values, dict):
        raise FormatError(f"`{path}` holds {type(values).__name__}, a JSON object expected")
    if values.get("architectures") != [ARCHITECTURE]:
        raise FormatError(
            f"`{path}` describes {values.get('architectures')!r:.200}, {ARCHITECTURE} expected",
            hint="only models of the LLaMA family's own architecture are read",
        )
    try:
        found = validate(_ConfigJson, values, where=f"`{path}`")
        theta, scaling = _rope(found, path)
        return validate(ModelConfig, _model_values(found, theta, scaling), where=f"`{path}`")
    except ConfigError as problem:
        raise FormatError(problem.message, hint=problem.hint) from None


def _model_values(found: _ConfigJson, theta: float, scaling: RopeScaling | None) -> dict[str, Any]:
    values: dict[str, Any] = {
        "vocab_size": found.vocab_size,
        "dim": found.hidden_size,
        "hidden_dim": found.intermediate_size,
        "num_layers": found.num_hidden_layers,
        "num_heads": found.num_attention_heads,
        "num_kv_heads": found.num_key_value_heads,
        "head_dim": found.head_dim,
        "max_seq_len": found.max_position_embeddings,
        "norm_eps": found.rms_norm_eps,
        "rope_theta": theta,
        "rope_scaling": scaling,
        "tie_embeddings": found.tie_word_embeddings,
    }
    return {key: value for key, value in values.items() if value is not None}


def _rope(found: _ConfigJson, path: Path) -> tuple[float, RopeScaling | None]:
    """Read base and scaling from `rope_parameters` (transformers 5), else from the older two keys."""
    table = found.rope_parameters or found.rope_scaling or {}
    theta = table.get("rope_theta", found.rope_theta)
    if not isinstance(theta, int | float) or not 0 < theta < float("inf"):
        raise FormatError(f"`{path}`: rope_theta is {theta!r:.100}, a positive number expected")
    kind = table.get("rope_type", table.get("type", "default"))
    if kind == "default":
        return float(theta), None
    if kind != "llama3":
        raise FormatError(
            f"`{path}`: rotary scaling {kind!r:.100} is not computed, only 'default' and 'llama3'"
        )
    scaling = validate(_Llama3Scaling, table, where=f"rope scaling of `{path}`")
    return float(theta), validate(
        RopeScaling,
        {
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_seq_len": scaling.original_max_position_embeddings,
        },
        where=f"rope scaling of `{path}`",
    )


def config_values(config: ModelConfig, *, dtype: torch.dtype, token_ids: Mapping[str, int]) -> dict[str, Any]:
    """Return the `config.json` of a model, readable by transformers 4 and 5 and vLLM.

    Args:
        dtype: the precision of the stored weights.
        token_ids: `bos_token_id` and `eos_token_id`, as far as the tokenizer has them.
    """
    return {
        "architectures": [ARCHITECTURE],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.dim,
        "intermediate_size": config.hidden_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_seq_len,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": _scaling_values(config.rope_scaling),
        "tie_word_embeddings": config.tie_embeddings,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": str(dtype).removeprefix("torch."),
        # None on purpose: LlamaConfig's defaults, 1 and 2, may mean ordinary tokens of this vocabulary.
        "bos_token_id": None,
        "eos_token_id": None,
        **token_ids,
    }


def _scaling_values(scaling: RopeScaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_max_seq_len,
    }
