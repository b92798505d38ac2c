"""Hugging Face LLaMA folders: the format models are kept in, read and written.

Entry points: `open_folder` and `save_model`. Weights are *.safetensors, one file or shards with an index;
pytorch_model.bin is a pickle and is never opened. What is written, transformers and vLLM load as it is;
`manifest.json` beside it is ours and says what the model was made from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import criadero
from criadero import files
from criadero.errors import FormatError
from criadero.formats.huggingface_config import config_values, parse_config
from criadero.formats.names import foreign_name, native_name
from criadero.formats.safetensors_file import SafetensorsWriter, TensorInfo, read_header, read_tensor
from criadero.formats.stored import StoredModel, StoredTensor, check, parameter_shapes
from criadero.model.config import ModelConfig
from criadero.tokenizer import tokenizer as tokenizers
from criadero.tokenizer.tokenizer import Tokenizer

MANIFEST_FORMAT = "criadero model"
MANIFEST_FORMAT_VERSION = 1
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_TEMPLATE = "chat_template.jinja"
_MAX_TEMPLATE_BYTES = 1 << 20
# No separators, so a name cannot lead out of the folder; links that the user's own cache made are followed.
_SHARD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}\.safetensors")
_TOKENIZER_FILES = ("tokenizer.model", "tokenizer.json")


def open_folder(folder: Path) -> StoredModel:
    """Read config and tensor headers of a Hugging Face folder; no weights yet.

    Raises:
        FormatError: the config, the index, a header, or the tensors against the config are at fault.
    """
    config = parse_config(
        files.read_json(folder / "config.json", max_bytes=1 << 20, error=FormatError), folder / "config.json"
    )
    tensors: dict[str, StoredTensor] = {}
    for path, names in _weight_files(folder).items():
        header = read_header(path)
        if names is not None and (absent := sorted(names - header.keys())):
            raise FormatError(f"`{path}` lacks `{absent[0]}`, which the index places there")
        for name, info in header.items():
            _add(tensors, name, info, path)
    if config.tie_embeddings:
        tensors.pop("output.weight", None)  # some writers store the tied matrix twice
    check(folder, config, tensors)
    has_tokenizer = any((folder / name).is_file() for name in _TOKENIZER_FILES)
    return StoredModel(
        path=folder,
        kind="Hugging Face folder",
        config=config,
        tensors=tensors,
        read_tokenizer=partial(tokenizers.load, folder) if has_tokenizer else None,
        chat_template=_template_text(folder),
    )


def _add(tensors: dict[str, StoredTensor], name: str, info: TensorInfo, path: Path) -> None:
    if name.endswith("rotary_emb.inv_freq"):
        return  # written by transformers before 4.31; computed here
    ours = native_name(name, "huggingface") or name
    if ours in tensors:
        raise FormatError(f"`{path}` holds `{name}` a second time")
    tensors[ours] = StoredTensor(info.shape, info.dtype, partial(read_tensor, path, name))


def _weight_files(folder: Path) -> dict[Path, set[str] | None]:
    """Return the weight files and, from an index, the names each must hold."""
    if (folder / _WEIGHTS).is_file():
        return {folder / _WEIGHTS: None}
    if not (folder / _INDEX).is_file():
        pickles = any(folder.glob("*.bin")) or any(folder.glob("*.pt*"))
        raise FormatError(
            f"`{folder}` holds neither {_WEIGHTS} nor {_INDEX}",
            hint="its weights are pickles, which can run code when opened; get the safetensors form"
            if pickles
            else None,
        )
    index = files.read_json(folder / _INDEX, max_bytes=1 << 26, error=FormatError)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise FormatError(f"`{folder / _INDEX}` has no `weight_map`")
    placed: dict[Path, set[str] | None] = {}
    for name, file_name in weight_map.items():
        if not isinstance(file_name, str) or not _SHARD_NAME.fullmatch(file_name):
            raise FormatError(
                f"`{folder / _INDEX}` names a file {file_name!r:.200}, `*.safetensors` expected"
            )
        names = placed.setdefault(folder / file_name, set())
        assert names is not None
        names.add(name)
    return placed


def _template_text(folder: Path) -> str | None:
    """Return the chat template beside the model, as text to be recognised; it is never run."""
    path = folder / _TEMPLATE
    if path.is_file():
        try:
            with path.open("rb") as stream:
                return stream.read(_MAX_TEMPLATE_BYTES).decode()
        except (OSError, UnicodeDecodeError) as problem:
            raise FormatError(f"`{path}` is not readable text: {problem}") from None
    settings = folder / "tokenizer_config.json"
    if not settings.is_file():
        return None
    values = files.read_json(settings, max_bytes=1 << 26, error=FormatError)
    template = values.get("chat_template") if isinstance(values, dict) else None
    return template if isinstance(template, str) else None


def save_model(
    named_tensors: Iterable[tuple[str, Tensor]],
    config: ModelConfig,
    tokenizer: Tokenizer | None,
    folder: Path,
    *,
    dtype: torch.dtype,
    max_shard_bytes: int = 5_000_000_000,
    chat_template: str | None = None,
    card: str | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> None:
    """Write a model as a Hugging Face folder, which appears whole or not at all.

    Args:
        named_tensors: every parameter once, by our names, in any order, on any device; held one at a time.
        folder: must not exist.
        dtype: float32, float16 or bfloat16, for every tensor.
        max_shard_bytes: size of a weight file above which another is begun.
        chat_template: text of the template to put beside the model, for transformers.
        card: text of the README.md to put beside the model.
        inputs: what the model was made from (hashes, run, step), for the manifest.

    Raises:
        RunError: `folder` exists.
        ResourceError: the disk has no room.
        FormatError: the tensors are not exactly those of the config, or do not fit into `dtype`.
    """
    shapes = parameter_shapes(config)
    needed_bytes = sum(torch.Size(shape).numel() for shape in shapes.values()) * dtype.itemsize
    files.require_free_bytes(
        folder.parent, int(needed_bytes * 1.02) + 32_000_000, purpose="writing the model"
    )
    with files.atomic_folder(folder) as temporary:
        _write_weights(named_tensors, shapes, temporary, dtype=dtype, max_shard_bytes=max_shard_bytes)
        token_ids = _token_ids(tokenizer)
        files.write_json(temporary / "config.json", config_values(config, dtype=dtype, token_ids=token_ids))
        files.write_json(temporary / "generation_config.json", {"_from_model_config": True, **token_ids})
        if tokenizer is not None:
            tokenizer.save(temporary)
        if chat_template is not None:
            files.write_text(temporary / _TEMPLATE, chat_template)
        if card is not None:
            files.write_text(temporary / "README.md", card)
        files.write_json(temporary / "manifest.json", _manifest(temporary, inputs or {}))


def _token_ids(tokenizer: Tokenizer | None) -> dict[str, int]:
    if tokenizer is None:
        return {}
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
    return {name: token_id for name, token_id in ids.items() if token_id is not None}


def _write_weights(
    named_tensors: Iterable[tuple[str, Tensor]],
    shapes: Mapping[str, tuple[int, ...]],
    folder: Path,
    *,
    dtype: torch.dtype,
    max_shard_bytes: int,
) -> None:
    shards = _plan_shards(shapes, max_shard_bytes // dtype.itemsize)
    file_names = [
        _WEIGHTS if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        for number in range(1, len(shards) + 1)
    ]
    writers: dict[str, SafetensorsWriter] = {}
    opened = []
    try:
        for file_name, names in zip(file_names, shards, strict=True):
            renamed = {foreign_name(name, "huggingface"): shapes[name] for name in names}
            opened.append(SafetensorsWriter(folder / file_name, renamed, dtype=dtype))
            writers.update(dict.fromkeys(names, opened[-1]))
        _stream_in(named_tensors, shapes, writers.pop, dtype=dtype)
        if writers:
            raise FormatError(
                f"{len(writers)} tensors of the model never came, the first is `{min(writers)}`"
            )
        for writer in opened:
            writer.close()
    finally:
        for writer in opened:
            writer.abandon()
    if len(shards) > 1:
        placed = zip(file_names, shards, strict=True)
        weight_map = {foreign_name(name, "huggingface"): file for file, names in placed for name in names}
        total_bytes = sum(torch.Size(shape).numel() for shape in shapes.values()) * dtype.itemsize
        files.write_json(folder / _INDEX, {"metadata": {"total_size": total_bytes}, "weight_map": weight_map})


def _plan_shards(shapes: Mapping[str, tuple[int, ...]], max_numbers: int) -> list[list[str]]:
    """Fill shards in the model's order; a tensor larger than the limit has a shard of its own."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, shape in shapes.items():
        size = torch.Size(shape).numel()
        if shards[-1] and filled + size > max_numbers:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _stream_in(
    named_tensors: Iterable[tuple[str, Tensor]],
    shapes: Mapping[str, tuple[int, ...]],
    take_writer: Callable[[str], SafetensorsWriter],
    *,
    dtype: torch.dtype,
) -> None:
    for name, tensor in named_tensors:
        if tuple(tensor.shape) != shapes.get(name):
            expected = list(shapes[name]) if name in shapes else "no such tensor"
            raise FormatError(f"`{name}` is {list(tensor.shape)}, {expected} expected")
        converted = tensor.detach().to(device="cpu", dtype=dtype)
        if dtype == torch.float16 and not torch.isfinite(converted).all() and torch.isfinite(tensor).all():
            raise FormatError(
                f"`{name}` has values up to {tensor.abs().max().item():.3g}, beyond float16",
                hint="choose `--dtype bfloat16` or `--dtype float32`",
            )
        try:
            writer = take_writer(name)
        except KeyError:
            raise FormatError(f"`{name}` came a second time") from None
        writer.write(foreign_name(name, "huggingface"), converted)


def listed_hashes(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file as the manifest of a model folder of ours has it; else nothing.

    Raises:
        FormatError: the manifest is not readable.
    """
    path = folder / "manifest.json"
    manifest = files.read_json(path, error=FormatError) if path.is_file() else {}
    if not isinstance(manifest, dict) or manifest.get("format") != MANIFEST_FORMAT:
        return {}
    try:
        return {name: str(entry["sha256"]) for name, entry in manifest["files"].items()}
    except (KeyError, TypeError, AttributeError) as problem:
        raise FormatError(f"`{path}` does not list its files as expected: {problem!r}") from problem


def _manifest(folder: Path, inputs: Mapping[str, Any]) -> dict[str, Any]:
    listed = {
        path.name: {"bytes": path.stat().st_size, "sha256": files.sha256_file(path)}
        for path in sorted(folder.iterdir())
        if path.is_file()
    }
    return {
        "format": MANIFEST_FORMAT,
        "format_version": MANIFEST_FORMAT_VERSION,
        "criadero": criadero.__version__,
        "inputs": dict(inputs),
        "files": listed,
    }
