"""Models by name: the four sizes of the paper (Table 2) and small ones for tests, the demo and a laptop.

Entry points: `preset(name)` for a checked `ModelConfig`, `num_parameters` for its exact size by arithmetic.
The paper does not state the norm epsilon; presets keep the default of `ModelConfig`, imported models bring
theirs.
"""

from __future__ import annotations

import difflib
from typing import Any

from criadero.config import validate
from criadero.errors import ConfigError
from criadero.model.config import ModelConfig

PRESETS: dict[str, dict[str, Any]] = {
    # LLaMA, Table 2: 6.7B, 13.0B, 32.5B, 65.2B
    "7b": {"dim": 4096, "num_layers": 32, "num_heads": 32},
    "13b": {"dim": 5120, "num_layers": 40, "num_heads": 40},
    "33b": {"dim": 6656, "num_layers": 60, "num_heads": 52},
    "65b": {"dim": 8192, "num_layers": 80, "num_heads": 64},
    # small ones
    "debug": {
        "vocab_size": 320,
        "dim": 32,
        "num_layers": 4,
        "num_heads": 4,
        "hidden_dim": 96,
        "max_seq_len": 128,
    },
    "demo": {"vocab_size": 4096, "dim": 128, "num_layers": 4, "num_heads": 2, "max_seq_len": 256},
    "laptop": {"vocab_size": 16000, "dim": 512, "num_layers": 6, "num_heads": 8, "max_seq_len": 1024},
}


def preset(name: str, **overrides: Any) -> ModelConfig:
    """Return the preset called `name` with some fields replaced; derived fields follow the replacements.

    Raises:
        ConfigError: no preset has this name, or the replaced fields are at fault.
    """
    if name not in PRESETS:
        close = difflib.get_close_matches(name.lower(), PRESETS, n=1)
        raise ConfigError(
            f"unknown model preset `{name}`" + (f", did you mean `{close[0]}`?" if close else ""),
            hint=f"presets are {', '.join(PRESETS)}",
        )
    return validate(ModelConfig, {**PRESETS[name], **overrides}, where=f"model preset `{name}`")


def num_parameters(config: ModelConfig) -> int:
    """Return the exact number of weights, embedding, norms and output included."""
    heads, kv_heads = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    attention = config.dim * (2 * heads + 2 * kv_heads)
    feed_forward = 3 * config.dim * config.hidden_dim
    layer = attention + feed_forward + 2 * config.dim
    tables = config.vocab_size * config.dim * (1 if config.tie_embeddings else 2)
    return tables + config.num_layers * layer + config.dim
