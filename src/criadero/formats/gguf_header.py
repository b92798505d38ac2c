"""The header of a GGUF file, scanned with every count, length and offset held against the file's size.

Entry point: `read_header`. Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Nothing is
allocated from a number in the file before the bytes it speaks of are known to be there; names and keys may
not repeat, arrays may not nest, tensors may not overlap. Versions 2 and 3, little-endian.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from criadero.errors import FormatError

MAX_TENSORS = 1 << 16
MAX_KEYS = 1 << 12
MAX_NAME_BYTES = 1 << 16
MAX_STRING_BYTES = 1 << 24
MAX_ARRAY_LENGTH = 1 << 22  # the largest vocabularies have 2^18 tokens and as many merges
MAX_ALIGNMENT = 1 << 16
MAX_DIMENSIONS = 4
_HEADER_BYTES = 24
_STRING, _ARRAY = 8, 9
_BOOL = 7
_SCALARS = {
    0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", _BOOL: "u1",
    10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip


@dataclass(frozen=True)
class GGUFTensor:
    """Where one tensor lies; `shape` outermost first, as torch has it."""

    type: GGMLQuantizationType
    shape: tuple[int, ...]
    start_bytes: int
    size_bytes: int


@dataclass(frozen=True)
class GGUFHeader:
    """Metadata (numbers, strings, numpy arrays, lists of strings) and tensors of a file."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, GGUFTensor]


def read_header(path: Path) -> GGUFHeader:
    """Scan the header of a GGUF file.

    Raises:
        FormatError: naming the file, the place and the number that cannot be.
    """
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Scanner(path, data).scan()
    except (OSError, ValueError) as problem:
        raise FormatError(f"`{path}` cannot be read as GGUF: {problem}") from problem


class _Scanner:
    """Reads forward through the mapped file; each step first checks that the bytes exist."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.size, self.at = path, data, len(data), 0

    def scan(self) -> GGUFHeader:
        if self.take(4, "magic") != b"GGUF":
            raise self.fault("magic", "does not read `GGUF`")
        version = self.number("<I", "version")
        if version not in (2, 3):
            raise self.fault("version", f"is {version}, 2 or 3 expected (little-endian)")
        tensor_count = self.count("tensor count", MAX_TENSORS, least_bytes=32)
        key_count = self.count("key count", MAX_KEYS, least_bytes=13)
        metadata: dict[str, Any] = {}
        for _ in range(key_count):
            key = self.string("key", MAX_NAME_BYTES)
            if key in metadata:
                raise self.fault(f"key {key!r:.100}", "comes a second time")
            metadata[key] = self.value(key)
        return GGUFHeader(metadata, self.tensors(tensor_count, self.alignment(metadata)))

    def fault(self, what: str, problem: str) -> FormatError:
        return FormatError(f"`{self.path}`: {what} at byte {self.at} {problem}")

    def take(self, count: int, what: str) -> bytes:
        if count > self.size - self.at:
            raise self.fault(what, f"claims {count:,} bytes, {self.size - self.at:,} are left")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, layout: str, what: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout), what))[0]

    def count(self, what: str, most: int, *, least_bytes: int) -> int:
        """Read how many of something follow, each of which takes at least `least_bytes`."""
        found = int(self.number("<Q", what))
        possible = min(most, (self.size - self.at) // least_bytes)
        if found > possible:
            raise self.fault(what, f"is {found:,}, at most {possible:,} are possible")
        return found

    def string(self, what: str, most: int) -> str:
        length = self.count(f"length of {what}", most, least_bytes=1)
        try:
            return self.take(length, what).decode()
        except UnicodeDecodeError:
            raise self.fault(what, "is not UTF-8") from None

    def value(self, key: str) -> Any:
        kind = self.number("<I", f"type of {key!r:.100}")
        if kind == _STRING:
            return self.string(repr(key[:100]), MAX_STRING_BYTES)
        if kind == _ARRAY:
            return self.array(key)
        if kind not in _SCALARS:
            raise self.fault(f"type of {key!r:.100}", f"is {kind}, no such type")
        scalar = self.scalars(key, kind, 1)[0]
        # The shortest decimal of a float32 is the number that was meant: 1e-05, not 9.999999747378752e-06.
        return float(str(scalar)) if scalar.dtype == np.float32 else scalar.item()

    def array(self, key: str) -> list[str] | npt.NDArray[Any]:
        kind, what = self.number("<I", f"element type of {key!r:.100}"), f"length of {key!r:.100}"
        if kind == _STRING:
            length = self.count(what, MAX_ARRAY_LENGTH, least_bytes=8)
            return [self.string(f"an element of {key!r:.100}", MAX_NAME_BYTES) for _ in range(length)]
        if kind not in _SCALARS:
            raise self.fault(what, f"is that of elements of type {kind}: numbers or strings expected")
        length = self.count(what, MAX_ARRAY_LENGTH, least_bytes=np.dtype(_SCALARS[kind]).itemsize)
        return self.scalars(key, kind, length)

    def scalars(self, key: str, kind: int, length: int) -> npt.NDArray[Any]:
        dtype = np.dtype(_SCALARS[kind])
        values = np.frombuffer(self.take(length * dtype.itemsize, f"value of {key!r:.100}"), dtype=dtype)
        return values != 0 if kind == _BOOL else values

    def alignment(self, metadata: Mapping[str, Any]) -> int:
        found = metadata.get("general.alignment", 32)
        if type(found) is not int or not 0 < found <= MAX_ALIGNMENT or found & (found - 1):
            raise self.fault("`general.alignment`", f"is {found!r:.100}, a power of two expected")
        return found

    def tensors(self, count: int, alignment: int) -> dict[str, GGUFTensor]:
        relative: dict[str, GGUFTensor] = {}
        for _ in range(count):
            name = self.string("name of a tensor", MAX_NAME_BYTES)
            if name in relative:
                raise self.fault(f"tensor {name!r:.100}", "comes a second time")
            relative[name] = self.tensor(name, alignment)
        start = -(-self.at // alignment) * alignment
        placed = {
            name: GGUFTensor(tensor.type, tensor.shape, start + tensor.start_bytes, tensor.size_bytes)
            for name, tensor in relative.items()
        }
        self.check_places(placed, start)
        return placed

    def tensor(self, name: str, alignment: int) -> GGUFTensor:
        what = f"tensor {name!r:.100}"
        dimensions = self.number("<I", what)
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise self.fault(what, f"has {dimensions} dimensions, 1 to {MAX_DIMENSIONS} expected")
        widths = struct.unpack(f"<{dimensions}Q", self.take(8 * dimensions, what))
        kind, offset = self.number("<I", what), self.number("<Q", what)
        try:
            quantization = GGMLQuantizationType(kind)
            block_length, block_bytes = GGML_QUANT_SIZES[quantization]
        except (ValueError, KeyError):
            raise self.fault(what, f"has type {kind}, no such type") from None
        if min(widths) < 1 or widths[0] % block_length:
            raise self.fault(what, f"has widths {widths}, whole blocks of {block_length} expected")
        if offset % alignment:
            raise self.fault(what, f"lies at {offset}, a multiple of {alignment} expected")
        size_bytes = math.prod(widths) // block_length * block_bytes
        return GGUFTensor(quantization, tuple(reversed(widths)), offset, size_bytes)

    def check_places(self, tensors: Mapping[str, GGUFTensor], start: int) -> None:
        """Check that no tensor begins inside another or ends beyond the file."""
        reached = start
        for name, tensor in sorted(tensors.items(), key=lambda item: item[1].start_bytes):
            what = f"tensor {name!r:.100}"
            if tensor.start_bytes < reached:
                raise self.fault(what, "overlaps the one before it")
            reached = tensor.start_bytes + tensor.size_bytes
            if reached > self.size:
                raise self.fault(what, f"ends at byte {reached:,}, the file has {self.size:,}")
