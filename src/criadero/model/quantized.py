"""Quantised matrices that stand where float ones do: 4 or 8 bits a weight, one scale and minimum a group.

Entry points: `QuantizedTensor`, which `F.linear` and `F.embedding` take as their weight, so that the
Transformer runs on it unchanged, `quantize`, which makes one, and `is_quantized`. Groups lie along columns;
value = scale * code + minimum, worked out in float32, so blocks of GGUF files are held without loss.
It is a traceable wrapper subclass: `torch.compile` sees through to its three parts.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_HAS_TRITON = bool(torch.version.cuda and importlib.util.find_spec("triton"))
if _HAS_TRITON:
    from criadero.model import quantized_triton

_PARTS = ("codes", "scales", "mins")
_BITS = (4, 8)
_GROUPS = (16, 32, 64)
# Weights that are dequantised together: 1 MiB of float32 where caches are small, more where calls cost more.
_VALUES_AT_ONCE = {"cpu": 1 << 18}
_VALUES_ELSEWHERE = 1 << 24


class QuantizedTensor(torch.Tensor):
    """A matrix (O, I) kept as codes, scales and minimums; for inference, gradients do not reach it.

    Args:
        codes: uint8, (O, I) with 8 bits; with 4, (O, I/2), column 2j in the low four bits of byte j and
            2j+1 in the high ones.
        scales: float16 or float32, (O, I/group), on the device of the codes.
        mins: like scales; the value of code 0.
        bits: 4 or 8.
        group: columns that share a scale; 16, 32 or 64.
        dtype: what it passes for: the dtype of what `F.embedding` returns.

    Raises:
        ValueError: parts that do not fit each other.
    """

    codes: Tensor
    scales: Tensor
    mins: Tensor
    bits: int
    group: int

    @staticmethod
    def __new__(
        cls,
        codes: Tensor,
        scales: Tensor,
        mins: Tensor,
        *,
        bits: int,
        group: int,
        dtype: torch.dtype = torch.float32,
    ) -> QuantizedTensor:
        shape = (codes.shape[0], codes.shape[1] * (8 // bits))
        return torch.Tensor._make_wrapper_subclass(
            cls, shape, dtype=dtype, device=codes.device, requires_grad=False
        )

    def __init__(
        self,
        codes: Tensor,
        scales: Tensor,
        mins: Tensor,
        *,
        bits: int,
        group: int,
        dtype: torch.dtype = torch.float32,  # noqa: ARG002  # __new__ has taken it
    ) -> None:
        rows, columns = self.shape
        if bits not in _BITS or group not in _GROUPS or columns % group:
            raise ValueError(f"{columns} columns of {bits} bits in groups of {group} are not held")
        if not scales.shape == mins.shape == (rows, columns // group):
            raise ValueError(
                f"scales {tuple(scales.shape)} and mins {tuple(mins.shape)}, "
                f"{(rows, columns // group)} expected"
            )
        self.codes, self.scales, self.mins = codes, scales, mins
        self.bits, self.group = bits, group

    def dequantize(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return the matrix (O, I) as a plain tensor; worked out in float32, then rounded to `dtype`."""
        return _dequantize(self.codes, self.scales, self.mins, bits=self.bits).to(dtype or self.dtype)

    @property
    def size_bytes(self) -> int:
        """The memory that codes, scales and minimums take."""
        return sum(part.nbytes for part in (self.codes, self.scales, self.mins))

    def select_rows(self, index: Tensor | slice) -> QuantizedTensor:
        """Return the rows that `index` (a slice, or int64 (N,)) names, in its order, as they are held."""
        return self._with([part[index] for part in self._parts()], self.dtype)

    def __repr__(self) -> str:  # type: ignore[override]
        return (
            f"QuantizedTensor({tuple(self.shape)}, bits={self.bits}, group={self.group}, "
            f"dtype={self.dtype}, device='{self.device}')"
        )

    def _parts(self) -> list[Tensor]:
        return [self.codes, self.scales, self.mins]

    def _with(self, parts: Sequence[Tensor], dtype: torch.dtype) -> QuantizedTensor:
        codes, scales, mins = parts
        return QuantizedTensor(codes, scales, mins, bits=self.bits, group=self.group, dtype=dtype)

    def __tensor_flatten__(self) -> tuple[list[str], dict[str, Any]]:
        return list(_PARTS), {"bits": self.bits, "group": self.group, "dtype": self.dtype}

    @staticmethod
    def __tensor_unflatten__(
        parts: Mapping[str, Tensor], kept: Mapping[str, Any], outer_size: Any, outer_stride: Any
    ) -> QuantizedTensor:
        return QuantizedTensor(*(parts[name] for name in _PARTS), **kept)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.linear:
            return _linear(*args, **(kwargs or {}))
        if func is F.embedding:
            return _embedding(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        if func in _SAME_FOR_EACH_PART:
            return args[0]._with([func(part, **options) for part in args[0]._parts()], args[0].dtype)
        if func is torch.ops.aten._to_copy.default:
            dtype = options.pop("dtype", None) or args[0].dtype
            return args[0]._with([func(part, **options) for part in args[0]._parts()], dtype)
        raise RuntimeError(
            f"{func} is not defined for quantised weights; call dequantize() for a plain tensor"
        )


_SAME_FOR_EACH_PART = (
    torch.ops.aten.detach.default,
    torch.ops.aten.alias.default,
    torch.ops.aten.clone.default,
)


def quantize(weight: Tensor, *, bits: int, group: int = 32) -> QuantizedTensor:
    """Round a float matrix (O, I) to the nearest codes, with float16 scales.

    Four bits span each group from its least to its greatest value, as Q4_1 of GGUF does; eight bits are
    spread evenly about zero, as in Q8_0. Scales too large for float16 are kept in float32.

    Raises:
        ValueError: it is no float matrix, I is no multiple of `group`, or `bits` or `group` are not held.
    """
    if isinstance(weight, QuantizedTensor) or weight.ndim != 2 or not weight.numel():
        raise ValueError(f"{tuple(weight.shape)} is no float matrix; of quantised ones take dequantize()")
    rows, columns = weight.shape
    if bits not in _BITS or group not in _GROUPS or columns % group:
        raise ValueError(f"{columns} columns of {bits} bits in groups of {group} are not held")
    grouped = weight.detach().to(torch.float32).reshape(rows, columns // group, group)
    if bits == 4:
        mins = _compact(grouped.amin(dim=-1))
        scales = _compact((grouped.amax(dim=-1) - mins) / 15)
    else:
        scales = _compact(grouped.abs().amax(dim=-1) / 127, largest=65504 / 128)
        mins = scales * -128
    divisor = scales.float().where(scales != 0, 1.0).unsqueeze(-1)
    codes = ((grouped - mins.float().unsqueeze(-1)) / divisor).round().clamp(0, 2**bits - 1)
    codes = codes.to(torch.uint8).reshape(rows, columns)
    if bits == 4:
        codes = codes[:, 0::2] | (codes[:, 1::2] << 4)
    return QuantizedTensor(codes, scales, mins, bits=bits, group=group, dtype=weight.dtype)


def is_quantized(module: torch.nn.Module) -> bool:
    """Tell whether any weight of a module is held as codes."""
    return any(isinstance(weight, QuantizedTensor) for weight in module.parameters())


def _compact(scales: Tensor, *, largest: float = 65504.0) -> Tensor:
    """Round scales to float16, unless one is too large for it."""
    return scales.to(torch.float16) if scales.abs().amax() <= largest else scales


def _dequantize(codes: Tensor, scales: Tensor, mins: Tensor, *, bits: int) -> Tensor:
    """Return scale * code + minimum in float32; leading dimensions as the codes have them, then (I,)."""
    if bits == 4:
        codes = torch.stack((codes & 15, codes >> 4), dim=-1).flatten(-2)
    grouped: Tensor = codes.unflatten(-1, (scales.shape[-1], -1)).to(torch.float32)
    return grouped.mul_(scales.float().unsqueeze(-1)).add_(mins.float().unsqueeze(-1)).flatten(-2)


def _linear(x: Tensor, weight: QuantizedTensor, bias: Tensor | None = None) -> Tensor:
    """Multiply few vectors on a GPU by codes; else dequantise some rows at a time, which the caches hold."""
    rows, columns = weight.shape
    if _HAS_TRITON and x.is_cuda and x.numel() <= quantized_triton.MOST_VECTORS * columns:
        product_MO: Tensor = quantized_triton.linear(x.reshape(-1, columns), *weight._parts(), weight.bits)
        product = product_MO.view(*x.shape[:-1], rows)
        return product if bias is None else product + bias
    rows_at_once = max(1, _VALUES_AT_ONCE.get(x.device.type, _VALUES_ELSEWHERE) // columns)
    if torch.compiler.is_compiling() or rows <= rows_at_once:  # the compiler fuses the whole
        return F.linear(x, weight.dequantize(x.dtype), bias)
    parts = [
        F.linear(x, weight.select_rows(slice(start, start + rows_at_once)).dequantize(x.dtype))
        for start in range(0, rows, rows_at_once)
    ]
    product = torch.cat(parts, dim=-1)
    return product if bias is None else product + bias


def _embedding(ids: Tensor, weight: QuantizedTensor, *_: Any, **__: Any) -> Tensor:
    """Dequantise the rows asked for only; the options of `F.embedding` concern training."""
    rows = [F.embedding(ids, part) for part in weight._parts()]
    return _dequantize(rows[0], rows[1], rows[2], bits=weight.bits).to(weight.dtype)
