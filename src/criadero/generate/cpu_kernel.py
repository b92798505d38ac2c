"""Decoding on the CPU in one C++ call a step, where torch spends most of its time on the way to operators.

Entry point: `cpu_decoder`, which gives what `TorchDecoder` is or None, with the reason said once: the kernel
is optional. Before it is used, its logits for a few tokens are compared with the model's own. Weights are
read where they are, in float32, bfloat16 or codes; the cache is float32 or bfloat16. Letters: L layers,
B batch, N blocks of a sequence, T tokens, K key/value heads, E head width, V vocabulary.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from ctypes import c_double, c_int32, c_int64, c_void_p
from typing import Any, Protocol

import torch
from torch import Tensor

from criadero.errors import ResourceError
from criadero.generate.cpu_build import load_library
from criadero.generate.decode import CHECK_TOKENS, ROUNDED, difference
from criadero.model.layout import WHOLE
from criadero.model.quantized import QuantizedTensor, is_quantized
from criadero.model.rope import inverse_frequencies
from criadero.model.transformer import Transformer
from criadero.notices import say_once

_BITS = {torch.float32: 32, torch.bfloat16: 16}
_ATTENTION_TOKENS = 256  # ITEM_TOKENS in the source, which whole blocks have to fill
# float32 differs in the order of sums only. In bfloat16 the reference itself is rounded after every operator,
# and beside codes activations are rounded to int8: ROUNDED.
_EXACT = 1e-3


# The cache's dtype that a model was last compared with.
_compared: weakref.WeakKeyDictionary[Transformer, torch.dtype] = weakref.WeakKeyDictionary()


class Cache(Protocol):
    """Keys and values in blocks, (L, blocks, K, tokens of a block, E) each, contiguous."""

    @property
    def keys(self) -> Tensor:
        """The keys, turned by their positions."""
        ...

    @property
    def values(self) -> Tensor:
        """The values."""
        ...


class _Unsuitable(Exception):
    """Why the kernel cannot run this model."""


class _Matrix(ctypes.Structure):
    _fields_ = (
        ("values", c_void_p), ("scales", c_void_p), ("mins", c_void_p),
        ("rows", c_int64), ("columns", c_int64),
        ("bits", c_int32), ("group", c_int32), ("half_scales", c_int32), ("half_mins", c_int32),
    )  # fmt: skip


class _Layer(ctypes.Structure):
    _fields_ = (
        ("attention_norm", c_void_p), ("feed_forward_norm", c_void_p),
        *((name, _Matrix) for name in ("q", "k", "v", "o", "gate", "up", "down")),
    )  # fmt: skip


class _Model(ctypes.Structure):
    _fields_ = (
        *((name, c_int64) for name in ("dim", "hidden_dim", "num_heads", "num_kv_heads", "head_dim")),
        ("vocab_size", c_int64), ("num_layers", c_int64), ("norm_eps", c_double),
        ("inverse_frequencies", c_void_p), ("norm", c_void_p), ("layers", ctypes.POINTER(_Layer)),
        ("embedding", _Matrix), ("output", _Matrix), ("block_tokens", c_int64), ("threads", c_int64),
    )  # fmt: skip


class _Step(ctypes.Structure):
    _fields_ = (
        ("batch", c_int64), ("table_columns", c_int64), ("num_blocks", c_int64), ("cache_bits", c_int64),
        *((name, c_void_p) for name in ("tokens", "positions", "tables", "keys", "values")),
        ("scored", c_int64), ("logits", c_void_p),
    )  # fmt: skip


_FAULTS = {
    1: "a token that the vocabulary does not have",
    2: "a position that its row of blocks does not reach",
    3: "a block that the cache does not have",
    5: "logits asked for some tokens; ask for none, one or all",
}


class CPUDecoder:
    """Decodes with the C++ kernel; as many threads as torch has when this is made.

    The results of a sequence do not depend on the other ones in the batch, nor on the number of threads.
    """

    def __init__(self, model: Transformer, cache: Cache) -> None:
        self.cache = cache
        self._vocab_size = model.config.vocab_size
        self._lock = threading.Lock()
        self._library = load_library()
        self._library.criadero_create.restype = c_void_p
        described = _Described(model, block_tokens=cache.keys.shape[3])
        self._kept = described.kept  # the kernel reads these where they are
        handle = self._library.criadero_create(ctypes.byref(described.model))
        if handle is None:
            raise _Unsuitable("no memory or no threads are left")
        self._handle = c_void_p(handle)
        destroy = weakref.finalize(self, _destroy, self._library, self._handle, os.getpid())
        destroy.atexit = False  # the threads end with the process

    def step(
        self, tokens_B: Tensor, positions_B: Tensor, tables_BN: Tensor, *, scored: int | None = None
    ) -> Tensor:
        """Append one token to each sequence; return logits (B, V), float32, or those of the last ones.

        Args:
            tokens_B: int64 ids.
            positions_B: int64; their keys and values go there, and all before are attended to.
            tables_BN: int32 block numbers of each sequence, padded with 0.
            scored: how many of the last tokens get logits: all (None), 1 or 0.

        Raises:
            ValueError: a token, position or block that is not there, or another number to score.
        """
        return self._step(self.cache, tokens_B, positions_B, tables_BN, scored=scored)

    def _step(
        self,
        cache: Cache,
        tokens_B: Tensor,
        positions_B: Tensor,
        tables_BN: Tensor,
        *,
        scored: int | None = None,
    ) -> Tensor:
        batch = len(tokens_B)
        scored = batch if scored is None else scored
        logits_BV = torch.empty(scored, self._vocab_size)
        if not batch:
            return logits_BV
        tokens_B, positions_B = (x.to("cpu", torch.int64).contiguous() for x in (tokens_B, positions_B))
        tables_BN = tables_BN.to("cpu", torch.int32).contiguous()
        assert len(positions_B) == len(tables_BN) == batch
        step = _Step(
            batch, tables_BN.shape[1], cache.keys.shape[1], _BITS[cache.keys.dtype],
            *(x.data_ptr() for x in (tokens_B, positions_B, tables_BN, cache.keys, cache.values)),
            scored, logits_BV.data_ptr(),
        )  # fmt: skip
        with self._lock:
            fault = self._library.criadero_step(self._handle, ctypes.byref(step))
        if fault in _FAULTS:
            raise ValueError(f"a step has {_FAULTS[fault]}")
        if fault:
            raise MemoryError("no memory is left for a step of decoding")
        return logits_BV


def cpu_decoder(model: Transformer, cache: Cache) -> CPUDecoder | None:
    """Return a decoder that runs `model` with the C++ kernel, or None after saying why once.

    Args:
        model: on the CPU, in float32, bfloat16 or quantised; its weights are read where they are.
        cache: float32 or bfloat16, on the CPU. What it holds is left alone.
    """
    if type(model) is not Transformer or model.norm.weight.device.type != "cpu":
        return None  # nothing is missing there
    try:
        _check_cache(cache)
        decoder = CPUDecoder(model, cache)
        if _compared.get(model) != cache.keys.dtype:  # not again for each new cache
            _compare(decoder, model)
            _compared[model] = cache.keys.dtype
    except (_Unsuitable, ResourceError) as problem:
        reason = problem.message if isinstance(problem, ResourceError) else str(problem)
        say_once(f"decoding runs in plain torch, several times slower than the C++ kernel: {reason}")
        return None
    return decoder


class _Described:
    """A model as the kernel is told of it, and all tensors whose addresses that names."""

    def __init__(self, model: Transformer, *, block_tokens: int) -> None:
        config = model.config
        self.kept: list[Any] = []
        layers = (_Layer * config.num_layers)(*(self._layer(layer) for layer in model.layers))
        self.kept.append(layers)
        if model.layout is not WHOLE:
            raise _Unsuitable("the model is spread over ranks")
        self.model = _Model(
            config.dim, config.hidden_dim, config.num_heads, config.num_kv_heads, config.head_dim,
            config.vocab_size, config.num_layers, config.norm_eps,
            self._floats(inverse_frequencies(config)), self._floats(model.norm.weight), layers,
            self._matrix(model.embedding.weight), self._matrix(model.output_weight),
            block_tokens, torch.get_num_threads(),
        )  # fmt: skip

    def _layer(self, layer: Any) -> _Layer:
        attention, feed_forward = layer.attention, layer.feed_forward
        linear = (
            attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj,
            feed_forward.gate_proj, feed_forward.up_proj, feed_forward.down_proj,
        )  # fmt: skip
        norms = (layer.attention_norm.weight, layer.feed_forward_norm.weight)
        return _Layer(
            *(self._floats(weight) for weight in norms), *(self._matrix(part.weight) for part in linear)
        )

    def _floats(self, weight: Tensor) -> int:
        return self._address(weight.detach().to(torch.float32).contiguous())

    def _matrix(self, weight: Tensor) -> _Matrix:
        rows, columns = weight.shape
        if isinstance(weight, QuantizedTensor):
            scales, mins = weight.scales, weight.mins
            parts = (self._address(part.contiguous()) for part in (weight.codes, scales, mins))
            halves = (part.dtype == torch.float16 for part in (scales, mins))
            return _Matrix(*parts, rows, columns, weight.bits, weight.group, *halves)
        if type(weight.detach()) is not Tensor or weight.dtype not in _BITS:
            raise _Unsuitable(f"it does not read weights in {weight.dtype}")
        return _Matrix(
            self._address(weight.detach().contiguous()), None, None, rows, columns, _BITS[weight.dtype]
        )

    def _address(self, tensor: Tensor) -> int:
        self.kept.append(tensor)
        return tensor.data_ptr()


def _check_cache(cache: Cache) -> None:
    for tensor in (cache.keys, cache.values):
        if tensor.device.type != "cpu" or tensor.dtype not in _BITS or tensor.dtype != cache.keys.dtype:
            raise _Unsuitable(f"it does not keep keys and values in {tensor.dtype} on {tensor.device}")
        if not tensor.is_contiguous() or _ATTENTION_TOKENS % tensor.shape[3]:
            raise _Unsuitable(f"it does not read a cache in blocks of {tensor.shape[3]} tokens")


class _OneBlock:
    """A cache for the comparison, so that the real one stays as it is."""

    def __init__(self, like: Cache) -> None:
        shape = (like.keys.shape[0], 1, *like.keys.shape[2:])
        self.keys = torch.zeros(shape, dtype=like.keys.dtype)
        self.values = torch.zeros(shape, dtype=like.values.dtype)


def _compare(decoder: CPUDecoder, model: Transformer) -> None:
    """Raise _Unsuitable unless the kernel's logits are those of the model, but for rounding."""
    count = min(CHECK_TOKENS, model.config.max_seq_len, decoder.cache.keys.shape[3])
    cache, table_1N = _OneBlock(decoder.cache), torch.zeros(1, 1, dtype=torch.int32)
    error = difference(
        model, lambda token_1, at_1: decoder._step(cache, token_1, at_1, table_1N), count=count
    )
    if not error <= _tolerance(decoder, model):
        raise _Unsuitable(f"its logits differ from the model's by {error:.2g} of their size")


def _tolerance(decoder: CPUDecoder, model: Transformer) -> float:
    dtypes = {decoder.cache.keys.dtype, *(weight.dtype for weight in model.parameters() if weight.ndim > 1)}
    exact = not is_quantized(model) and dtypes == {torch.float32}
    return _EXACT if exact else ROUNDED


def _destroy(library: ctypes.CDLL, handle: c_void_p, process: int) -> None:
    if os.getpid() == process:  # a forked process does not have the threads that would be waited for
        library.criadero_destroy(handle)
