"""Meta's own folders: consolidated.NN.pth in model-parallel parts, params.json, tokenizer.model.

Entry point: `open_folder`. The parts are pickles by format; they are opened with `weights_only=True` and
mapped from disk where the file allows, never otherwise. Column-parallel matrices are cut by rows,
row-parallel ones and the embedding of LLaMA 1 and 2 by columns (LLaMA 3 cuts its embedding by rows).
Rows of q and k turn in neighbouring pairs there and in halves here.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from criadero import files
from criadero.config import Config, validate
from criadero.errors import ConfigError, FormatError
from criadero.formats.names import interleaved_to_halves, is_rotated, native_name
from criadero.formats.stored import StoredModel, StoredTensor, check
from criadero.model.config import ModelConfig
from criadero.tokenizer import tokenizer as tokenizers

_PART_NAME = re.compile(r"consolidated\.(\d{2})\.pth")
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_ROW_PARALLEL = (".o_proj.weight", ".down_proj.weight")
# The text models of LLaMA 3.2 by width: they stretch RoPE by more than LLaMA 3.1's factor.
_LLAMA_3_2_DIMS = (2048, 3072)
Width = Annotated[int, Field(strict=True, ge=1, le=1 << 20)]
PositiveFloat = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]


class _Params(Config):
    """`params.json` of LLaMA 1 to 3; another key may change the model, so it is refused."""

    dim: Width
    n_layers: Annotated[int, Field(strict=True, ge=1, le=4096)]
    n_heads: Width
    n_kv_heads: Width | None = None
    vocab_size: Annotated[int, Field(strict=True, ge=-1, le=1 << 24)] = -1
    multiple_of: int = 256
    ffn_dim_multiplier: float | None = None
    norm_eps: PositiveFloat = 1e-5
    rope_theta: PositiveFloat = 10000.0
    use_scaled_rope: bool = False
    max_batch_size: int | None = None
    max_seq_len: Annotated[int, Field(strict=True, ge=1, le=1 << 30)] = 2048


def open_folder(folder: Path) -> StoredModel:
    """Open params.json and map every part; no weights are copied yet.

    Raises:
        FormatError: a part is missing, is not tensors only, or does not fit the others or params.json.
    """
    params = _read_params(folder / "params.json")
    parts = [_open_part(path) for path in _part_paths(folder)]
    merged = _merged_tensors(folder, parts, params)
    config = _config(folder, params, merged)
    check(folder, config, merged)
    has_tokenizer = (folder / "tokenizer.model").is_file()
    return StoredModel(
        path=folder,
        kind=f"Meta folder in {len(parts)} part" + ("s" if len(parts) > 1 else ""),
        config=config,
        tensors=merged,
        read_tokenizer=partial(tokenizers.load, folder / "tokenizer.model") if has_tokenizer else None,
    )


def _read_params(path: Path) -> _Params:
    values = files.read_json(path, max_bytes=1 << 20, error=FormatError)
    if not isinstance(values, dict):
        raise FormatError(f"`{path}` holds {type(values).__name__}, a JSON object expected")
    try:
        return validate(_Params, values, where=f"`{path}`")
    except ConfigError as problem:
        raise FormatError(problem.message, hint=problem.hint) from None


def _part_paths(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.glob("consolidated.*.pth") if _PART_NAME.fullmatch(path.name))
    if not paths or [path.name for path in paths] != [f"consolidated.{n:02d}.pth" for n in range(len(paths))]:
        found = ", ".join(path.name for path in paths) or "none"
        raise FormatError(f"`{folder}` lacks a part: found {found}; consolidated.00.pth onwards expected")
    return paths


def _open_part(path: Path) -> dict[str, Tensor]:
    """Open one part without running anything it holds: tensors and plain containers only."""
    try:
        with path.open("rb") as stream:
            is_zip = stream.read(4) == b"PK\x03\x04"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice on pickle protocols is not for the user
            table = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as problem:  # torch raises whatever malformed bytes lead it to
        reason = str(problem).partition("\n")[0] or type(problem).__name__
        raise FormatError(
            f"`{path}` cannot be opened as tensors only: {reason}",
            hint="a file that holds more than tensors could run code and is never opened another way",
        ) from None
    if not isinstance(table, dict) or not all(isinstance(value, Tensor) for value in table.values()):
        raise FormatError(f"`{path}` does not hold a table of tensors")
    return table


def _merged_tensors(
    folder: Path, parts: Sequence[Mapping[Any, Tensor]], params: _Params
) -> dict[str, StoredTensor]:
    names = [name for name in parts[0] if name != "rope.freqs"]  # computed here
    merged = {}
    for name in names:
        if not isinstance(name, str) or any(name not in part for part in parts):
            raise FormatError(f"`{folder}`: tensor {name!r:.200} is not in every part")
        pieces = [part[name] for part in parts]
        if any(piece.dtype not in _DTYPES or piece.dtype != pieces[0].dtype for piece in pieces):
            raise FormatError(
                f"`{folder}`: `{name}` has dtype {pieces[0].dtype}, a 16 or 32 bit float expected"
            )
        if any(piece.shape != pieces[0].shape or not piece.is_contiguous() for piece in pieces):
            raise FormatError(f"`{folder}`: the parts of `{name}` differ in shape")
        ours = native_name(name, "meta") or name
        merged[ours] = _merged(ours, pieces, params)
    return merged


def _merged(name: str, pieces: Sequence[Tensor], params: _Params) -> StoredTensor:
    shape = list(pieces[0].shape)
    axis = _split_axis(name, shape, params) if len(pieces) > 1 else None
    if axis is not None:
        shape[axis] *= len(pieces)
    head_dim = params.dim // params.n_heads

    def read() -> Tensor:
        whole = pieces[0] if axis is None else torch.cat(list(pieces), dim=axis)
        return interleaved_to_halves(whole, head_dim=head_dim) if is_rotated(name) else whole

    return StoredTensor(tuple(shape), pieces[0].dtype, read)


def _split_axis(name: str, shape: Sequence[int], params: _Params) -> int | None:
    """Return the axis along which the parts of a tensor are put together, None for one kept whole."""
    if len(shape) < 2:
        return None
    if name == "embedding.weight":
        return 0 if shape[1] == params.dim else 1
    return 1 if name.endswith(_ROW_PARALLEL) else 0


def _config(folder: Path, params: _Params, tensors: Mapping[str, StoredTensor]) -> ModelConfig:
    """Complete params.json from the weights: vocabulary when it says -1, and feed-forward width."""
    try:
        vocab_size = tensors["embedding.weight"].shape[0]
        hidden_dim = tensors["layers.0.feed_forward.gate_proj.weight"].shape[0]
    except (KeyError, IndexError):
        raise FormatError(f"`{folder}` lacks the embedding or the first layer's feed-forward") from None
    if params.use_scaled_rope and params.dim in _LLAMA_3_2_DIMS:
        raise FormatError(
            f"`{folder}` scales RoPE by a factor that LLaMA 3.2's params.json does not state",
            hint="import the Hugging Face folder of the same model, whose config.json states it",
        )
    scaling = {"factor": 8.0, "original_max_seq_len": 8192} if params.use_scaled_rope else None  # LLaMA 3.1
    values = {
        "vocab_size": vocab_size if params.vocab_size in (-1, 0) else params.vocab_size,
        "dim": params.dim,
        "num_layers": params.n_layers,
        "num_heads": params.n_heads,
        "num_kv_heads": params.n_kv_heads or params.n_heads,
        "hidden_dim": hidden_dim,
        "max_seq_len": params.max_seq_len,
        "norm_eps": params.norm_eps,
        "rope_theta": params.rope_theta,
        "rope_scaling": scaling,
    }
    try:
        return validate(ModelConfig, values, where=f"`{folder / 'params.json'}`")
    except ConfigError as problem:
        raise FormatError(problem.message, hint=problem.hint) from None
