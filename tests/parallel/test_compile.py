"""Compiled layers give the numbers of eager ones; without a compiler training goes on, and that is said."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partialmethod

import pytest
import torch
from torch._dynamo.utils import counters
from torch.autograd.graph import saved_tensors_hooks

from criadero.model.config import ModelConfig
from criadero.model.init import initialize
from criadero.model.rope import rope_tables
from criadero.model.transformer import Transformer
from criadero.parallel import compile as module
from criadero.parallel.config import ParallelConfig
from criadero.parallel.launch import Launch, distributed
from criadero.parallel.mesh import Mesh, build_mesh
from criadero.parallel.parallelize import parallelize
from criadero.parallel.recompute import recompute_layers
from criadero.parallel.tensor_parallel import share_products
from ranks import run_ranks
from toy import toy

B, T = 3, 16
CONFIG = ModelConfig(
    vocab_size=32, dim=32, num_layers=2, num_heads=4, num_kv_heads=4, hidden_dim=48, max_seq_len=T
)
D, H, F = CONFIG.dim, CONFIG.num_heads, CONFIG.hidden_dim
TOKENS_BT = torch.randint(30, (B, T), generator=torch.Generator().manual_seed(4))
DOCUMENT_T = torch.arange(T) // 5
MASK_BTT = ((DOCUMENT_T[:, None] == DOCUMENT_T) & torch.ones(T, T, dtype=torch.bool).tril()).expand(B, T, T)
# float32 differs by the order of sums; bfloat16 by roundings of 0.4% that a fused kernel does not make.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 0.03}


@dataclass
class Ran:
    """Names of parameters; gradients and scored logits of each batch; graphs there were after each."""

    names: list[str]
    results: list[torch.Tensor]
    graphs: list[int]


def graphs() -> int:
    """Graphs compiled so far; none may be broken in two."""
    assert not counters["graph_break"]
    return counters["stats"]["unique_graphs"]


def run(device: torch.device, policy: str, dtype: torch.dtype, masks: list, *, compiled: bool) -> Ran:
    model = Transformer(CONFIG)
    initialize(model, 1)
    recompute_layers(model, policy)
    if compiled:
        assert module.compile_layers(model, device)
    parallelize(model, build_mesh(ParallelConfig(), device), param_dtype=dtype)
    named = dict(model.named_parameters())
    results, compiled_graphs = [], []
    for mask_BTT in masks:
        for tokens_BT in (TOKENS_BT, TOKENS_BT):
            model(tokens_BT, mask_BTT=mask_BTT).float().square().mean().backward()
            results += [p.grad.full_tensor().clone() for p in named.values()]
            model.zero_grad()
        with torch.no_grad():
            results.append(model(TOKENS_BT, mask_BTT=mask_BTT).float())
        model.reshard()
        compiled_graphs.append(graphs())
    return Ran(list(named), results, compiled_graphs)


def difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


@contextmanager
def one_rank() -> Iterator[torch.device]:
    torch._dynamo.reset()
    counters.clear()
    with distributed(Launch(), torch.device("cpu"), timeout_seconds=100) as device:
        yield device
    torch._dynamo.reset()


def require_same(policy: str, dtype: torch.dtype, masks: list) -> list[int]:
    """Compare compiled with eager training and scoring; return how many graphs there were after each mask."""
    with one_rank() as device:
        eager = run(device, policy, dtype, masks, compiled=False)
        before = graphs()
        compiled = run(device, policy, dtype, masks, compiled=True)
    assert compiled.names == eager.names
    for actual, expected in zip(compiled.results, eager.results, strict=True):
        assert difference(actual, expected) < TOLERANCES[dtype]
    return [count - before for count in compiled.graphs]


@pytest.fixture
def without_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that compiling does but for code: trace, differentiate, decide what is kept. Done in seconds."""
    original = torch.nn.Module.compile
    quick = partialmethod(original, backend="aot_eager_decomp_partition")
    monkeypatch.setattr(torch.nn.Module, "compile", quick)
    monkeypatch.setattr(module, "_why_not_compile", lambda device: None)
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(module.find_compiler() is None, reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore")
def test_compiled_layers_have_the_same_names_and_gradients():
    require_same("paper", torch.bfloat16, [None])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("without_code")
@pytest.mark.parametrize(
    ("policy", "dtype"),
    [("none", torch.float32), ("paper", torch.bfloat16), ("full", torch.float32)],
    ids=["none", "paper", "full"],
)
def test_however_many_layers_and_batches_there_is_one_graph_to_train_and_one_to_score(
    policy: str, dtype: torch.dtype
):
    """And two more for masks, and no more when batches without come again."""
    assert require_same(policy, dtype, [None, MASK_BTT, None]) == [2, 4, 4]


def shared_products(mesh: Mesh) -> list[float]:
    """Differences between gradients of compiled and of eager layers whose products two ranks share."""
    gradients = []
    for compiled in (False, True):
        model = Transformer(CONFIG)
        initialize(model, 1)
        share_products(model, mesh, chunks=2)
        recompute_layers(model, "paper")
        for layer in model.layers if compiled else []:
            layer.compile(dynamic=False, fullgraph=True, backend="aot_eager_decomp_partition")
        parallelize(model, mesh, param_dtype=torch.float32)
        model(TOKENS_BT).square().mean().backward()
        gradients.append([parameter.grad.full_tensor() for parameter in model.parameters()])
    assert graphs() == 1
    return [difference(actual, expected) for actual, expected in zip(*gradients, strict=True)]


def test_layers_whose_products_ranks_share_are_one_graph_too():
    for differences in run_ranks(shared_products, 2, tp=2):
        assert max(differences) < TOLERANCES[torch.float32]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("without_code")
def test_a_compiled_layer_keeps_what_the_policy_says():
    """The checkpoint is inside the compiled layer, so the compiler follows it."""
    model = Transformer(CONFIG)
    initialize(model, 1)
    recompute_layers(model, "paper")
    assert module.compile_layers(model, torch.device("cpu"))
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    layer = model.layers[0]
    parameters = {parameter.untyped_storage().data_ptr() for parameter in layer.parameters()}
    x_BTD = torch.randn(B, T, D, requires_grad=True)
    tables = rope_tables(torch.arange(T).unsqueeze(0), CONFIG)
    with saved_tensors_hooks(note, lambda tensor: tensor):
        layer(x_BTD, tables)
    others = {tables.cos.untyped_storage().data_ptr(), tables.signed_sin.untyped_storage().data_ptr()}
    assert sum(kept[address] for address in kept.keys() - parameters - others) == B * T * 4 * (
        6 * D + 2 * F + H
    )


def test_without_a_compiler_compilation_is_off_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(module.shutil, "which", lambda _name: None)
    with caplog.at_level(logging.WARNING, logger="criadero"):
        assert not module.compile_layers(toy(), torch.device("cpu"))
        assert not module.compile_layers(toy(), torch.device("cpu"))
    said = [record.message for record in caplog.records if "compilation is off" in record.message]
    assert len(said) <= 1
    assert "no C++ compiler" in "".join(said)
