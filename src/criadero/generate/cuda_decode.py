"""Decoding on a GPU by CUDA graphs of compiled layers: one launch a step, not one an operator.

Entry point: `graph_decoder`, which gives what `TorchDecoder` is or None, with the reason said once. A graph
is of one shape, so rows are padded to a power of two, and tables to a power of two of blocks. A row that
pads is the last one once more: it writes what that writes. Letters: B batch, N blocks of a table, S all
tokens, K key/value heads, E head width, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from criadero.generate.decode import CHECK_TOKENS, ROUNDED, PageIndex, difference, last_logits
from criadero.generate.kv_cache import BLOCK_TOKENS, PagedCache
from criadero.model.layout import WHOLE
from criadero.model.rope import RopeTables, rope_tables
from criadero.model.transformer import Transformer
from criadero.notices import say_once

_LEAST_BLOCKS = 8  # 256 tokens: below that a smaller graph saves little
_DEVICE = "cuda"
_BLOCK_1 = torch.ones(1, 1, dtype=torch.int32)  # the table of a sequence in block 1

# Runs a function once, and returns a function that does the same again.
Capture = Callable[[Callable[[], None]], Callable[[], None]]


def graph_decoder(model: Transformer, cache: PagedCache) -> GraphDecoder | None:
    """Return a decoder that replays CUDA graphs, or None after saying why once; None on other devices.

    Args:
        model: with loaded weights, on one GPU.
        cache: empty, on the model's device.
    """
    if cache.keys.device.type != _DEVICE or model.layout is not WHOLE:
        return None
    try:
        decoder = GraphDecoder(model, cache, capture=cuda_graphs())
        _compile(decoder)
        count = min(CHECK_TOKENS, model.config.max_seq_len)
        found = difference(model, lambda token_1, at_1: decoder.step(token_1, at_1, _BLOCK_1), count=count)
        cache.clear()
    except RuntimeError as problem:  # torch's class for what fails in compiling and capturing
        reason = str(problem).partition("\n")[0]
    else:
        if found <= ROUNDED:
            return decoder
        reason = f"its logits differ from the model's by {found:.2g} of their size"
    say_once(f"decoding runs in plain torch, several times slower than CUDA graphs: {reason}")
    return None


def cuda_graphs() -> Capture:
    """Return what captures functions; only one of them runs at any time, for all share their memory."""
    pool = torch.cuda.graph_pool_handle()

    def capture(run: Callable[[], None]) -> Callable[[], None]:
        stream = torch.cuda.Stream()  # compiling and first use of libraries must not be captured
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            run()
        return graph.replay

    return capture


@dataclass
class _Graph:
    """A captured step and the tensors it reads and writes."""

    rows: Tensor
    logits_BV: Tensor
    replay: Callable[[], None]


class GraphDecoder:
    """Decodes with a graph for each shape, captured when it is first met.

    Args:
        model: with loaded weights.
        cache: whose tensors stay where they are.
        capture: what `cuda_graphs` returns.
        compiled: whether layers are compiled; once for the first shape, and again for what then varies.
    """

    def __init__(
        self, model: Transformer, cache: PagedCache, *, capture: Capture, compiled: bool = True
    ) -> None:
        self._model = model
        self._cache = cache
        self._capture = capture
        self._graphs: dict[tuple[int, int], _Graph] = {}
        self._layer = torch.compile(_run_layer, fullgraph=True) if compiled else _run_layer

    @torch.inference_mode()
    def step(
        self, tokens_B: Tensor, positions_B: Tensor, tables_BN: Tensor, *, scored: int | None = None
    ) -> Tensor:
        """Return logits (B, V), float32; see `decode.Decoder`."""
        batch = len(tokens_B)
        needed = int(positions_B.max()) // BLOCK_TOKENS + 1
        shape = (_power_of_two(batch), max(_LEAST_BLOCKS, _power_of_two(needed)))
        rows = torch.zeros(shape[0], 2 + shape[1], dtype=torch.int64)
        rows[:batch, 0], rows[:batch, 1] = tokens_B, positions_B
        rows[:batch, 2 : 2 + needed] = tables_BN[:, :needed]
        rows[batch:] = rows[batch - 1]
        graph = self._graphs.get(shape)
        if graph is None:
            graph = self._graphs[shape] = self._captured(rows)
        graph.rows.copy_(rows)
        graph.replay()
        return graph.logits_BV[batch - (batch if scored is None else scored) : batch].clone()

    def _captured(self, rows: Tensor) -> _Graph:
        """Make a graph of this shape. Running it on the way writes what its first replay will write again."""
        device = self._cache.keys.device
        rows = rows.to(device)
        logits_BV = torch.empty(len(rows), self._model.config.vocab_size, device=device)

        def run() -> None:
            logits_BV.copy_(self._logits(rows))

        return _Graph(rows, logits_BV, self._capture(run))

    def _logits(self, rows: Tensor) -> Tensor:
        """Return logits (B, V) of rows of a token, its position, and a table; nothing here waits."""
        model, cache = self._model, self._cache
        tokens_B1, positions_B1, tables_BN = rows[:, :1], rows[:, 1:2], rows[:, 2:]
        index = PageIndex.of(tables_BN, positions_B1, num_heads=cache.keys.shape[2])
        mask_B1S = (
            torch.arange(tables_BN.shape[1] * BLOCK_TOKENS, device=rows.device) <= positions_B1[..., None]
        )
        tables = rope_tables(positions_B1, model.config)
        x_B1D = F.embedding(tokens_B1, model.embedding.weight)
        for layer, keys, values in zip(model.layers, cache.keys, cache.values, strict=True):
            x_B1D = self._layer(layer, x_B1D, tables, mask_B1S, _LayerPages(keys, values, index))
        return last_logits(model.norm(x_B1D), model.output_weight)


@dataclass(frozen=True)
class _LayerPages:
    """What attention sees of one layer of the cache: keys and values are (blocks, K, BLOCK_TOKENS, E)."""

    keys: Tensor
    values: Tensor
    index: PageIndex

    def update(self, _layer_index: int, k_BK1E: Tensor, v_BK1E: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new keys and values; return all, (B, K, S, E) each."""
        self.index.store(self.keys, k_BK1E)
        self.index.store(self.values, v_BK1E)
        return self.index.gather(self.keys), self.index.gather(self.values)


def _run_layer(
    layer: nn.Module, x_B1D: Tensor, tables: RopeTables, mask_B1S: Tensor, pages: _LayerPages
) -> Any:
    return layer(x_B1D, tables, mask_BTS=mask_B1S, cache=pages)


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _compile(decoder: GraphDecoder) -> None:
    """Meet one row, a longer table and two rows: requests of any shape then find their layers compiled."""
    for batch, position in ((1, 0), (1, _LEAST_BLOCKS * BLOCK_TOKENS), (2, 0)):
        table_BN = torch.ones(batch, position // BLOCK_TOKENS + 1, dtype=torch.int32)
        decoder.step(torch.zeros(batch, dtype=torch.int64), torch.full((batch,), position), table_BN)
