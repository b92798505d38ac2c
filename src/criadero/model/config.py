"""What a model is: its sizes and constants, with derived ones filled in and contradictions refused.

Entry point: `ModelConfig`. It covers the paper's decoder (LLaMA 2.2) and its heirs: grouped-query heads,
tied embeddings, another RoPE base, Llama-3 RoPE scaling, any norm epsilon. No torch here, so a dry run
stays quick.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from criadero.config import Config

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def feed_forward_width(dim: int, *, multiple_of: int = 256) -> int:
    """Return 2/3 * 4 * dim rounded up (LLaMA 2.2; the multiple of 256 is that of the released weights)."""
    return multiple_of * -(-(8 * dim // 3) // multiple_of)


class RopeScaling(Config):
    """Llama-3 stretching of RoPE: long wavelengths slowed by `factor`, short ones kept, a ramp between.

    A wavelength is long above `original_max_seq_len / low_freq_factor` tokens and short below
    `original_max_seq_len / high_freq_factor`.

    Attributes:
        kind: the only one there is.
        factor: how much longer the context becomes.
        low_freq_factor: turns within the original context below which a pair is slowed by `factor`.
        high_freq_factor: turns above which a pair is left as it is.
        original_max_seq_len: context the model was trained with before, tokens.
    """

    kind: Literal["llama3"] = "llama3"
    factor: PositiveFloat
    low_freq_factor: PositiveFloat = 1.0
    high_freq_factor: PositiveFloat = 4.0
    original_max_seq_len: PositiveInt = 8192

    @model_validator(mode="after")
    def _check_ramp(self) -> Self:
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor {self.high_freq_factor} must be greater than "
                f"low_freq_factor {self.low_freq_factor}"
            )
        return self


def _default_num_kv_heads(values: dict[str, Any]) -> int:
    return int(values.get("num_heads", 1))


def _default_head_dim(values: dict[str, Any]) -> int:
    return max(1, int(values.get("dim", 1)) // int(values.get("num_heads", 1)))


def _default_hidden_dim(values: dict[str, Any]) -> int:
    return feed_forward_width(int(values.get("dim", 1)))


class ModelConfig(Config):
    """Sizes and constants of one decoder; every field holds a value after validation.

    Left out, `num_kv_heads` is `num_heads` (multi-head attention), `head_dim` is `dim / num_heads` and
    `hidden_dim` is `feed_forward_width(dim)`. Lengths and positions are counted in tokens.

    Attributes:
        vocab_size: rows of the embedding; at least the tokenizer's ids.
        dim: model width.
        num_layers: decoder layers.
        num_heads: query heads.
        num_kv_heads: key/value heads; fewer than `num_heads` is grouped-query attention.
        head_dim: width of a head.
        hidden_dim: feed-forward width.
        max_seq_len: longest context, tokens.
        norm_eps: added to the mean of squares in each RMSNorm.
        rope_theta: base of the rotary wavelengths.
        rope_scaling: stretching of RoPE for a longer context.
        tie_embeddings: whether the output shares the embedding's weight.
    """

    vocab_size: PositiveInt = 32000
    dim: PositiveInt
    num_layers: PositiveInt
    num_heads: PositiveInt
    num_kv_heads: PositiveInt = Field(default_factory=_default_num_kv_heads)
    head_dim: PositiveInt = Field(default_factory=_default_head_dim)
    hidden_dim: PositiveInt = Field(default_factory=_default_hidden_dim)
    max_seq_len: PositiveInt = 2048
    norm_eps: PositiveFloat = 1e-6
    rope_theta: PositiveFloat = 10000.0
    rope_scaling: RopeScaling | None = None
    tie_embeddings: bool = False

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        faults = []
        if "head_dim" not in self.model_fields_set and self.dim % self.num_heads:
            faults.append(f"dim {self.dim} is not a multiple of num_heads {self.num_heads}")
        if self.num_heads % self.num_kv_heads:
            faults.append(f"num_heads {self.num_heads}, not a multiple of num_kv_heads {self.num_kv_heads}")
        if self.head_dim % 2:
            faults.append(f"head_dim {self.head_dim} is odd, and RoPE rotates pairs")
        if faults:
            raise ValueError("\n".join(faults))
        return self
