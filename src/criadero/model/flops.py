"""Floating-point operations of training, the two counts that published MFU figures use.

Entry point: `flops_per_token`. 6N is two operations per weight and token forward and twice that backward; N
counts every parameter, embedding included, which is what reproduces the MFU behind the paper's Table 15.
The second count adds 12 * layers * dim * seq for the attention scores and their use with values (PaLM,
appendix B), uncut by causality.
"""

from __future__ import annotations

from criadero.model.config import ModelConfig
from criadero.model.presets import num_parameters


def flops_per_token(config: ModelConfig, seq_len: int, *, attention: bool) -> int:
    """Return the operations of one trained token in a sequence of `seq_len` tokens.

    With `attention` false this is 6N; true adds 12 * layers * (heads * head width) * seq_len, the product
    in brackets being the model width in the paper's models.
    """
    weights = 6 * num_parameters(config)
    if not attention:
        return weights
    return weights + 12 * config.num_layers * config.num_heads * config.head_dim * seq_len
