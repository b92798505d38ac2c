"""One safetensors file: its header checked before anything is trusted, and a writer that streams.

Entry points: `read_header`, `read_tensor`, `SafetensorsWriter`. The header is 8 bytes of length, that many
bytes of JSON, then the data: https://github.com/huggingface/safetensors#format. The library behind
`read_tensor` checks most of this again; here each fault is named, and duplicate keys are refused, which
it would let pass. The writer takes tensors in any order and holds one at a time.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from criadero.errors import FormatError

# The format allows 100 MB; the header of a 65B LLaMA has 0.1 MB, and JSON grows about 20-fold when parsed.
MAX_HEADER_BYTES = 16 << 20
MAX_DIMENSIONS = 8
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies: dtype, shape, and its first and one-past-last byte in the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start_bytes: int
    stop_bytes: int


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Read and check the header of a safetensors file.

    Raises:
        FormatError: the file is missing or cut, the header too long, not JSON, nested oddly, with a
            duplicate key, a dtype other than F32, F16 or BF16, a negative or overlapping range.
    """
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as stream:
            header, start_bytes = _read_json_header(stream, size_bytes)
    except OSError as problem:
        raise FormatError(f"`{path}` cannot be read: {problem.strerror}") from problem
    except (ValueError, RecursionError, MemoryError) as problem:
        raise FormatError(
            f"`{path}` is not a safetensors file: {problem or 'its header is too deep'}"
        ) from None
    header.pop("__metadata__", None)
    tensors = {name: _tensor_info(path, name, entry, start_bytes) for name, entry in header.items()}
    _check_cover(path, tensors, start_bytes, size_bytes)
    return tensors


def read_tensor(path: Path, name: str) -> Tensor:
    """Read one tensor, backed by the mapped file where the library can (CPU; copied on write).

    Raises:
        FormatError: the library refuses the file.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensor: Tensor = file.get_tensor(name)
            return tensor
    except (SafetensorError, OSError, ValueError, RuntimeError) as problem:
        raise FormatError(f"`{path}`: tensor `{name}` cannot be read: {problem}") from problem


def _read_json_header(stream: IO[bytes], size_bytes: int) -> tuple[dict[str, Any], int]:
    prefix = stream.read(8)
    if len(prefix) < 8:
        raise ValueError(f"it has {size_bytes} bytes, 8 are the least")
    (length,) = struct.unpack("<Q", prefix)
    if length > MAX_HEADER_BYTES or length > size_bytes - 8:
        limit = min(MAX_HEADER_BYTES, size_bytes - 8)
        raise ValueError(f"its header claims {length:,} bytes, at most {limit:,} are possible")
    header = json.loads(stream.read(length).decode(), object_pairs_hook=_unique_keys)
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    return header, 8 + length


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("its header holds a key twice")
    return table


def _tensor_info(path: Path, name: str, entry: Any, header_end: int) -> TensorInfo:
    try:
        dtype_name, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
        integers = [*shape, start, stop]
    except (TypeError, KeyError, ValueError):
        raise FormatError(f"`{path}`: the header entry of `{name}` lacks dtype, shape or offsets") from None
    if not isinstance(dtype_name, str) or dtype_name not in DTYPES:
        raise FormatError(
            f"`{path}`: `{name}` has dtype {dtype_name!r}, one of {', '.join(DTYPES)} is needed"
        )
    if len(integers) > MAX_DIMENSIONS + 2 or any(
        type(n) is not int or not 0 <= n < 1 << 63 for n in integers
    ):
        raise FormatError(f"`{path}`: `{name}` has a shape or offset that is not made of sizes from 0 up")
    dtype = DTYPES[dtype_name]
    if math.prod(shape) * dtype.itemsize != stop - start:
        raise FormatError(
            f"`{path}`: `{name}` of shape {shape} and dtype {dtype_name} cannot fill bytes {start} to {stop}"
        )
    return TensorInfo(dtype, tuple(shape), header_end + start, header_end + stop)


def _check_cover(path: Path, tensors: Mapping[str, TensorInfo], start_bytes: int, size_bytes: int) -> None:
    """Check that the tensors follow each other without gap or overlap to the end of the file."""
    reached, last = start_bytes, "the header"
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].start_bytes, item[1].stop_bytes)):
        if info.start_bytes != reached:
            fault = "overlaps" if info.start_bytes < reached else "leaves a gap after"
            raise FormatError(f"`{path}`: `{name}` {fault} {last}")
        reached, last = info.stop_bytes, f"`{name}`"
    if reached != size_bytes:
        raise FormatError(f"`{path}` has {size_bytes:,} bytes, its header describes {reached:,}")


class SafetensorsWriter:
    """A safetensors file whose header is written first and whose tensors arrive in any order.

    Args:
        path: the file, created anew.
        shapes: every tensor to come and its shape.
        dtype: what each tensor is converted to.
    """

    def __init__(self, path: Path, shapes: Mapping[str, tuple[int, ...]], *, dtype: torch.dtype) -> None:
        self.dtype, self._missing = dtype, set(shapes)
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offset = 0
        self._offsets: dict[str, int] = {}
        for name, shape in shapes.items():
            stop = offset + math.prod(shape) * dtype.itemsize
            header[name] = {
                "dtype": _DTYPE_NAMES[dtype],
                "shape": list(shape),
                "data_offsets": [offset, stop],
            }
            self._offsets[name], offset = offset, stop
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._start_bytes = 8 + len(text)
        self._stream = path.open("xb")
        self._stream.write(struct.pack("<Q", len(text)) + text)

    def write(self, name: str, tensor: Tensor) -> None:
        """Put one tensor of the announced shape in its place; `name` may come once."""
        self._missing.remove(name)
        data = tensor.detach().to(device="cpu", dtype=self.dtype).contiguous()
        self._stream.seek(self._start_bytes + self._offsets[name])
        self._stream.write(data.view(-1).view(torch.uint8).numpy().data)

    def close(self) -> None:
        """Finish the file durably; every announced tensor must have come."""
        if self._missing:
            raise ValueError(f"tensors never written: {sorted(self._missing)}")
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()

    def abandon(self) -> None:
        """Close the file as it is."""
        self._stream.close()
