"""GGUF files of LLaMA models, read: metadata to config, blocks to tensors, vocabulary to tokenizer.

Entry point: `open_file`. The header is scanned by `gguf_header` before anything is trusted; blocks are
turned into numbers by the `gguf` library. Rows of q and k turn in neighbouring pairs there and in halves
here. The chat template inside is text to be recognised, never run.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from pydantic import Field
from torch import Tensor

from criadero.config import Config, validate
from criadero.errors import ConfigError, FormatError
from criadero.formats.gguf_blocks import HELD, quantized_from_blocks
from criadero.formats.gguf_header import GGUFHeader, GGUFTensor, read_header
from criadero.formats.gguf_tokenizer import read_tokenizer
from criadero.formats.names import interleaved_to_halves, is_rotated, native_name
from criadero.formats.stored import StoredBlocks, StoredModel, StoredTensor, check
from criadero.model.config import ModelConfig, RopeScaling
from criadero.model.quantized import QuantizedTensor
from criadero.model.rope import inverse_frequencies

_ROPE_FACTORS = "rope_freqs.weight"
_DTYPES = {
    GGMLQuantizationType.F32: torch.float32,
    GGMLQuantizationType.F16: torch.float16,
    GGMLQuantizationType.BF16: torch.bfloat16,
    # The block scales are float16, so float16 holds their products better than bfloat16 would.
    **dict.fromkeys(HELD, torch.float16),
}
Width = Annotated[int, Field(strict=True, ge=1, le=1 << 20)]
PositiveFloat = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
One = Annotated[float, Field(ge=1, le=1)]


class _Metadata(Config):
    """The `llama.*` keys; one that is not here may change the computation, so it is refused."""

    context_length: Annotated[int, Field(strict=True, ge=1, le=1 << 30)] = 2048
    embedding_length: Width
    block_count: Annotated[int, Field(strict=True, ge=1, le=4096)]
    feed_forward_length: Width
    vocab_size: Annotated[int, Field(strict=True, ge=1, le=1 << 24)] | None = None
    num_heads: Width = Field(alias="attention.head_count")
    num_kv_heads: Width | None = Field(None, alias="attention.head_count_kv")
    key_length: Width | None = Field(None, alias="attention.key_length")
    value_length: Width | None = Field(None, alias="attention.value_length")
    norm_eps: PositiveFloat = Field(alias="attention.layer_norm_rms_epsilon")
    causal: Literal[True] = Field(True, alias="attention.causal")
    rope_width: Width | None = Field(None, alias="rope.dimension_count")
    rope_theta: PositiveFloat = Field(10000.0, alias="rope.freq_base")
    scaling_type: Literal["none"] | None = Field(None, alias="rope.scaling.type")
    scaling_factor: One | None = Field(None, alias="rope.scaling.factor")
    scaling_attention: One | None = Field(None, alias="rope.scaling.attn_factor")
    scaling_length: int | None = Field(None, alias="rope.scaling.original_context_length")
    scaling_finetuned: bool | None = Field(None, alias="rope.scaling.finetuned")
    expert_count: Literal[0] | None = None
    expert_used_count: Literal[0] | None = None
    tensor_data_layout: str | None = None


def open_file(path: Path) -> StoredModel:
    """Read config and tensor table of a GGUF file; no weights yet.

    Raises:
        FormatError: malformed, another architecture, a quantisation or scaling that is not read, or
            tensors that do not fit the config.
    """
    header = read_header(path)
    if header.metadata.get("general.architecture") != "llama":
        found = header.metadata.get("general.architecture")
        raise FormatError(f"`{path}` has the architecture {found!r:.100}, 'llama' expected")
    if header.metadata.get("split.count", 1) not in (0, 1):
        raise FormatError(
            f"`{path}` is one of several split files", hint="join them with llama-gguf-split --merge"
        )
    _check_types(path, header.tensors)
    config = _config(path, header)
    tensors = {
        native_name(name, "gguf") or name: _stored(path, name, tensor, config)
        for name, tensor in header.tensors.items()
        if name != _ROPE_FACTORS
    }
    check(path, config, tensors)
    template = header.metadata.get("tokenizer.chat_template")
    has_tokenizer = header.metadata.get("tokenizer.ggml.model", "no_vocab") != "no_vocab"
    return StoredModel(
        path=path,
        kind="GGUF file (" + ", ".join(sorted({t.type.name for t in header.tensors.values()})) + ")",
        config=config,
        tensors=tensors,
        read_tokenizer=partial(read_tokenizer, header.metadata, path) if has_tokenizer else None,
        chat_template=template if isinstance(template, str) else None,
    )


def _check_types(path: Path, tensors: Mapping[str, GGUFTensor]) -> None:
    foreign = sorted({tensor.type.name for tensor in tensors.values() if tensor.type not in _DTYPES})
    if foreign:
        raise FormatError(
            f"`{path}` holds {', '.join(foreign)} weights; {', '.join(t.name for t in _DTYPES)} are read",
            hint="get the model in one of those, Q8_0 for example",
        )


def _stored(path: Path, name: str, tensor: GGUFTensor, config: ModelConfig) -> StoredTensor:
    ours = native_name(name, "gguf") or name

    def read() -> Tensor:
        weight = _read(path, tensor)
        return interleaved_to_halves(weight, head_dim=config.head_dim) if is_rotated(ours) else weight

    def read_blocks() -> Tensor:
        rows = torch.from_numpy(_read_rows(path, tensor))
        return interleaved_to_halves(rows, head_dim=config.head_dim) if is_rotated(ours) else rows

    def read_quantized() -> QuantizedTensor:
        return quantized_from_blocks(read_blocks().numpy(), tensor.type)

    if tensor.type not in HELD:
        return StoredTensor(tensor.shape, _DTYPES[tensor.type], read)
    blocks = StoredBlocks(tensor.type.name, read_blocks)
    is_matrix = len(tensor.shape) == 2
    return StoredTensor(
        tensor.shape, _DTYPES[tensor.type], read, blocks, read_quantized if is_matrix else None
    )


def _read_rows(path: Path, tensor: GGUFTensor) -> npt.NDArray[Any]:
    """Read the bytes of one tensor, uint8 (rows, bytes a row)."""
    block_length, block_bytes = GGML_QUANT_SIZES[tensor.type]
    row_bytes = tensor.shape[-1] // block_length * block_bytes
    raw: npt.NDArray[Any] = np.fromfile(
        path, dtype=np.uint8, count=tensor.size_bytes, offset=tensor.start_bytes
    )
    if raw.size != tensor.size_bytes:
        raise FormatError(f"`{path}` became shorter while it was read")
    return raw.reshape(*tensor.shape[:-1], row_bytes)


def _read(path: Path, tensor: GGUFTensor) -> Tensor:
    """Read one tensor: 16 and 32 bit floats as they are, blocks dequantised to float32."""
    rows = _read_rows(path, tensor)
    if tensor.type == GGMLQuantizationType.F32:
        return torch.from_numpy(rows.view(np.float32))
    if tensor.type == GGMLQuantizationType.F16:
        return torch.from_numpy(rows.view(np.float16))
    if tensor.type == GGMLQuantizationType.BF16:
        return torch.from_numpy(rows).view(torch.bfloat16)
    with np.errstate(all="ignore"):  # a scale that is not finite gives weights that are not
        return torch.from_numpy(dequantize(rows, tensor.type))


def _config(path: Path, header: GGUFHeader) -> ModelConfig:
    values = {
        key.removeprefix("llama."): value
        for key, value in header.metadata.items()
        if key.startswith("llama.")
    }
    try:
        found = validate(_Metadata, values, where=f"the metadata of `{path}`")
        config = validate(ModelConfig, _model_values(found, header), where=f"the metadata of `{path}`")
    except ConfigError as problem:
        raise FormatError(problem.message, hint=problem.hint) from None
    widths = (found.key_length, found.value_length, found.rope_width)
    if any(width not in (None, config.head_dim) for width in widths):
        raise FormatError(
            f"`{path}` has heads of key, value and rotary width {widths}; one width for all expected"
        )
    factors = header.tensors.get(_ROPE_FACTORS)
    return config if factors is None else _with_scaling(path, config, factors)


def _model_values(found: _Metadata, header: GGUFHeader) -> dict[str, Any]:
    embedding = header.tensors.get("token_embd.weight")
    values = {
        "vocab_size": found.vocab_size or (embedding.shape[0] if embedding else None),
        "dim": found.embedding_length,
        "hidden_dim": found.feed_forward_length,
        "num_layers": found.block_count,
        "num_heads": found.num_heads,
        "num_kv_heads": found.num_kv_heads,
        "head_dim": found.key_length,
        "max_seq_len": found.context_length,
        "norm_eps": found.norm_eps,
        "rope_theta": found.rope_theta,
        "tie_embeddings": "output.weight" not in header.tensors,
    }
    return {key: value for key, value in values.items() if value is not None}


def _with_scaling(path: Path, config: ModelConfig, factors: GGUFTensor) -> ModelConfig:
    """Find the Llama-3 scaling whose slow-down of each frequency the file lists.

    The file keeps only the outcome; the bounds 1 and 4 are those of every released model, the factor is
    the largest slow-down, and the original length is tried in powers of two.
    """
    if factors.type != GGMLQuantizationType.F32 or factors.shape != (config.head_dim // 2,):
        raise FormatError(
            f"`{path}`: {_ROPE_FACTORS} has {factors.shape}, ({config.head_dim // 2},) expected"
        )
    slow_down = _read(path, factors)
    if torch.equal(slow_down, torch.ones_like(slow_down)):
        return config
    largest = slow_down.max().item()
    for exponent in range(6, 24) if 1 < largest < 1e6 else ():
        scaling = RopeScaling(factor=largest, original_max_seq_len=2**exponent)
        scaled = config.model_copy(update={"rope_scaling": scaling})
        if torch.allclose(inverse_frequencies(config) / inverse_frequencies(scaled), slow_down, rtol=1e-4):
            return scaled
    raise FormatError(
        f"`{path}`: {_ROPE_FACTORS} is not a Llama-3 rotary scaling, the only one that is computed"
    )
