"""A model as a GGUF file that llama.cpp runs.

Entry point: `write_gguf`. The `gguf` library writes the header and quantises; tensors follow one at a time,
so memory holds one. Norms stay float32; rows of q and k go back to neighbouring pairs. The outcome of a
Llama-3 rotary scaling is a tensor there, `rope_freqs.weight`, as llama.cpp reads it.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch
from gguf import GGUFWriter
from gguf.constants import (
    GGML_QUANT_SIZES,
    GGML_QUANT_VERSION,
    GGUF_DEFAULT_ALIGNMENT,
    GGMLQuantizationType,
    GGUFEndian,
    LlamaFileType,
)
from gguf.quants import quantize
from torch import Tensor

from criadero import files
from criadero.errors import FormatError
from criadero.formats.gguf_vocabulary import vocabulary_keys
from criadero.formats.names import foreign_name, halves_to_interleaved, is_rotated
from criadero.formats.stored import StoredModel, StoredTensor
from criadero.model.config import ModelConfig
from criadero.model.rope import inverse_frequencies
from criadero.notices import say_once
from criadero.tokenizer.tokenizer import Tokenizer

_ROPE_FACTORS = "rope_freqs.weight"
_ENDS = ("embedding.weight", "output.weight")
_FLOAT16_MAX = 65504.0
_FREE_BYTES = 32_000_000  # room for the header and for what else is written meanwhile

# By the name users give it: the type of the matrices, and what llama.cpp calls such a file.
_TYPES = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (GGMLQuantizationType.Q4_0, LlamaFileType.MOSTLY_Q4_0),
    "q4_1": (GGMLQuantizationType.Q4_1, LlamaFileType.MOSTLY_Q4_1),
}
GGUF_DTYPES = tuple(_TYPES)


@dataclass(frozen=True)
class _Planned:
    """A tensor of the file to come: our name, theirs, its type; blocks of the same type are copied."""

    ours: str
    theirs: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        block_length, block_bytes = GGML_QUANT_SIZES[self.type]
        return int(self.shape[-1] // block_length * block_bytes)

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape[:-1]) * self.row_bytes


def write_gguf(
    stored: StoredModel,
    path: Path,
    *,
    dtype: str,
    name: str,
    tokenizer: Tokenizer | None,
    licence: str | None = None,
    ends_dtype: str | None = None,
) -> None:
    """Write a model as a GGUF file, which appears whole or not at all.

    Args:
        stored: the model; its tensors are read one at a time.
        path: must not exist.
        dtype: one of `GGUF_DTYPES`, for the matrices. Blocks that are of this type already are copied, and
            where most are, so are the others: a file keeps what it is.
        name: what the model is called inside.
        tokenizer: None for a file that takes token ids only.
        licence: of the weights, None if it is not known.
        ends_dtype: like `dtype`, for embedding and output; None for the same.

    Raises:
        FormatError: llama.cpp would compute something else, or a value does not fit into `dtype`.
        RunError: `path` exists, or cannot be written.
        ResourceError: the disk has no room.
    """
    plan = _plan(stored, _TYPES[dtype][0], ends=_TYPES[ends_dtype or dtype][0])
    keys = _general_keys(dtype, name=name, licence=licence) | _model_keys(stored.config)
    vocabulary = vocabulary_keys(tokenizer, vocab_size=stored.config.vocab_size)
    keys |= {f"tokenizer.ggml.{key}": value for key, value in vocabulary.items()}
    if stored.chat_template is not None:
        keys["tokenizer.chat_template"] = stored.chat_template
    factors = _rope_factors(stored.config)
    needed_bytes = sum(_padded(tensor.size_bytes) for tensor in plan) + _FREE_BYTES
    files.require_free_bytes(path.parent, needed_bytes, purpose="writing the model")
    with files.atomic_large_write(path) as stream:
        _write_header(Path(stream.name), keys, plan, factors)
        stream.seek(0, os.SEEK_END)
        _align(stream)
        if factors is not None:
            _append(stream, factors)
        for tensor in plan:
            _append(stream, _values(stored.tensors[tensor.ours], tensor, stored.config))


def _plan(stored: StoredModel, wanted: GGMLQuantizationType, *, ends: GGMLQuantizationType) -> list[_Planned]:
    held = Counter(tensor.blocks.type if tensor.blocks else "" for tensor in _matrices(stored))
    keeps_blocks = bool(held) and held.most_common(1)[0][0] == wanted.name
    plan = []
    for ours, tensor in stored.tensors.items():
        is_matrix = len(tensor.shape) > 1
        chosen = (ends if ours in _ENDS else wanted) if is_matrix else GGMLQuantizationType.F32
        if is_matrix and tensor.blocks is not None and keeps_blocks:
            chosen = GGMLQuantizationType[tensor.blocks.type]
        elif tensor.shape[-1] % GGML_QUANT_SIZES[chosen][0]:
            say_once(f"rows of {tensor.shape[-1]} numbers are not whole blocks: such matrices become F16")
            chosen = GGMLQuantizationType.F16
        plan.append(_Planned(ours, foreign_name(ours, "gguf"), chosen, tensor.shape))
    return plan


def _matrices(stored: StoredModel) -> list[StoredTensor]:
    return [tensor for tensor in stored.tensors.values() if len(tensor.shape) > 1]


def _general_keys(dtype: str, *, name: str, licence: str | None) -> dict[str, Any]:
    keys: dict[str, Any] = {
        "general.type": "model",
        "general.name": name,
        "general.file_type": int(_TYPES[dtype][1]),
        "general.quantization_version": GGML_QUANT_VERSION,
    }
    return keys if licence is None else keys | {"general.license": licence}


def _model_keys(config: ModelConfig) -> dict[str, Any]:
    keys = {
        "vocab_size": config.vocab_size,
        "context_length": config.max_seq_len,
        "embedding_length": config.dim,
        "block_count": config.num_layers,
        "feed_forward_length": config.hidden_dim,
        "attention.head_count": config.num_heads,
        "attention.head_count_kv": config.num_kv_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.norm_eps,
        "rope.dimension_count": config.head_dim,
        "rope.freq_base": config.rope_theta,
    }
    return {f"llama.{key}": value for key, value in keys.items()}


def _rope_factors(config: ModelConfig) -> npt.NDArray[Any] | None:
    """Return by how much each pair is slowed down, float32 (E/2); None without a scaling."""
    if config.rope_scaling is None:
        return None
    plain = inverse_frequencies(config.model_copy(update={"rope_scaling": None}))
    factors: npt.NDArray[Any] = (plain / inverse_frequencies(config)).numpy()
    return factors


def _write_header(
    path: Path, keys: Mapping[str, Any], plan: list[_Planned], factors: npt.NDArray[Any] | None
) -> None:
    writer = GGUFWriter(path, "llama", endianess=GGUFEndian.LITTLE)
    for key, value in keys.items():
        _add_key(writer, key, value)
    if factors is not None:
        writer.add_tensor_info(_ROPE_FACTORS, factors.shape, factors.dtype, factors.nbytes)
    for tensor in plan:
        rows = (*tensor.shape[:-1], tensor.row_bytes)
        writer.add_tensor_info(
            tensor.theirs, rows, np.dtype(np.uint8), tensor.size_bytes, raw_dtype=tensor.type
        )
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()


def _add_key(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _values(stored: StoredTensor, tensor: _Planned, config: ModelConfig) -> npt.NDArray[Any]:
    """Read a tensor and turn it into what the file holds."""
    copied = stored.blocks is not None and stored.blocks.type == tensor.type.name
    weight = stored.blocks.read() if stored.blocks is not None and copied else stored.read()
    if is_rotated(tensor.ours):
        weight = halves_to_interleaved(weight, head_dim=config.head_dim)
    weight = weight.contiguous()
    return np.asarray(weight.numpy()) if copied else _converted(weight, tensor)


def _converted(weight: Tensor, tensor: _Planned) -> npt.NDArray[Any]:
    if tensor.type == GGMLQuantizationType.F32:
        return np.asarray(weight.float().numpy())
    if tensor.type == GGMLQuantizationType.BF16:
        return np.asarray(weight.to(torch.bfloat16).view(torch.int16).numpy())
    largest = weight.abs().max().item()
    if not largest <= _FLOAT16_MAX:
        raise FormatError(
            f"`{tensor.ours}` has values up to {largest:.3g}, beyond float16, in which "
            f"{tensor.type.name} keeps {'them' if tensor.type == GGMLQuantizationType.F16 else 'its scales'}",
            hint="choose `--dtype bf16` or `--dtype f32`",
        )
    if tensor.type == GGMLQuantizationType.F16:
        return np.asarray(weight.to(torch.float16).numpy())
    return np.asarray(quantize(weight.float().numpy(), tensor.type))


def _append(stream: IO[bytes], values: npt.NDArray[Any]) -> None:
    stream.write(np.ascontiguousarray(values).data)
    _align(stream)


def _align(stream: IO[bytes]) -> None:
    at = stream.tell()
    stream.write(b"\0" * (_padded(at) - at))


def _padded(size_bytes: int) -> int:
    return int(-(-size_bytes // GGUF_DEFAULT_ALIGNMENT) * GGUF_DEFAULT_ALIGNMENT)
