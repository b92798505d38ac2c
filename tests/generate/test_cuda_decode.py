"""Decoding by CUDA graphs as far as no GPU is needed; its results are tried in test_batching.py."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from criadero.generate import cuda_decode
from criadero.generate.cuda_decode import GraphDecoder, graph_decoder
from criadero.generate.decode import TorchDecoder
from criadero.generate.kv_cache import PagedCache
from criadero.model.quantized import quantize
from criadero.model.transformer import Transformer
from generate.tiny_model import run_again, tiny_model


def new_cache(model: Transformer, **options) -> PagedCache:
    return PagedCache(model.config, num_blocks=24, dtype=torch.float32, **options)


def quantised(model: Transformer) -> Transformer:
    for module in model.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding) and module.weight.shape[1] % 16 == 0:
            codes = quantize(module.weight.detach(), bits=8, group=16)
            module.weight = torch.nn.Parameter(codes, requires_grad=False)
    return model


class OnlyOn(TorchDispatchMode):
    """Fail where an operator touches another device: a copy to or from it cannot be captured."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device, self.operators = device, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)]
        assert {tensor.device.type for tensor in tensors} <= {self.device}, func
        self.operators += 1
        return out


def test_a_step_neither_waits_for_the_device_nor_copies_to_it():
    """`meta` has no values: what asks for one fails."""
    config = tiny_model().config
    with torch.device("meta"):
        model = Transformer(config)
    decoder = GraphDecoder(model, new_cache(model, device="meta"), capture=run_again, compiled=False)
    with torch.inference_mode(), OnlyOn("meta") as seen:
        logits_BV = decoder._logits(torch.zeros(4, 2 + 8, dtype=torch.int64, device="meta"))
    assert logits_BV.shape == (4, 261)
    assert seen.operators > 100


@pytest.mark.parametrize("prepared", [lambda model: model, quantised], ids=["float", "quantised"])
def test_layers_are_compiled_three_times_for_all_shapes(prepared):
    torch._dynamo.reset()
    model = prepared(tiny_model(max_seq_len=600).requires_grad_(False))
    cache, plain = new_cache(model), new_cache(model)
    decoder, expected = GraphDecoder(model, cache, capture=run_again), TorchDecoder(model, plain)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for batch in (1, 3, 2, 7):
        for position in (5, 300, 500):
            tokens_B, tables_BN = torch.arange(batch) + 7, torch.arange(1, 23).int().expand(batch, -1)
            positions_B = torch.arange(batch) + position
            found = decoder.step(tokens_B, positions_B, tables_BN)
            torch.testing.assert_close(
                found, expected.step(tokens_B, positions_B, tables_BN), rtol=1e-3, atol=1e-3
            )
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] - before == 3
    torch.testing.assert_close(cache.keys, plain.keys, rtol=1e-3, atol=1e-4)


def test_there_is_none_for_other_devices(caplog):
    model = tiny_model()
    assert graph_decoder(model, new_cache(model)) is None
    assert not caplog.messages


@pytest.fixture
def _as_on_cuda(monkeypatch):
    monkeypatch.setattr(cuda_decode, "_DEVICE", "cpu")


@pytest.mark.usefixtures("_as_on_cuda")
def test_it_begins_with_an_empty_cache_and_all_compiled(monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr(cuda_decode, "cuda_graphs", lambda: run_again)
    model = tiny_model().requires_grad_(False)
    cache = new_cache(model)
    decoder = graph_decoder(model, cache)
    assert isinstance(decoder, GraphDecoder)
    assert not cache.keys.any()
    assert not cache.values.any()
    with torch.compiler.set_stance("fail_on_recompile"):
        for batch, position in ((1, 600), (4, 90), (7, 600)):
            tables_BN = torch.arange(1, 21).int().expand(batch, -1)
            decoder.step(torch.arange(batch), torch.full((batch,), position), tables_BN)


@pytest.mark.usefixtures("_as_on_cuda")
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (
            RuntimeError("no compiler\nstack"),
            "plain torch, several times slower than CUDA graphs: no compiler",
        ),
        (None, "its logits differ from the model's by"),
    ],
)
def test_what_fails_or_differs_is_not_used_and_said(monkeypatch, caplog, fault, reason):
    def capture(run):
        if fault:
            raise fault
        return lambda: None  # replays nothing

    monkeypatch.setattr(cuda_decode, "cuda_graphs", lambda: capture)
    model = tiny_model().requires_grad_(False)
    with caplog.at_level("WARNING", logger="criadero"):
        assert graph_decoder(model, new_cache(model)) is None
    (said,) = caplog.messages
    assert reason in said
    assert "stack" not in said
