"""8-bit products: with torchao's emulation near the exact ones; devices that lack them are refused."""

from __future__ import annotations

import sys
from functools import partial

import pytest
import torch
from torch import nn

from criadero.errors import ResourceError
from criadero.model.config import ModelConfig
from criadero.model.init import initialize
from criadero.model.transformer import Transformer
from criadero.parallel import fp8
from criadero.parallel.mesh import Mesh
from criadero.parallel.parallelize import parallelize
from criadero.parallel.recompute import recompute_layers
from executed import Executed
from train.one_rank import one_rank

CONFIG = ModelConfig(
    vocab_size=30, dim=32, num_layers=2, num_heads=4, num_kv_heads=2, hidden_dim=48, max_seq_len=16
)
CPU = torch.device("cpu")


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """8-bit rounding, with the products themselves in the compute dtype, on any device."""
    import torchao.float8 as torchao

    monkeypatch.setattr(torchao, "Float8LinearConfig", partial(torchao.Float8LinearConfig, emulate=True))
    monkeypatch.setattr(fp8, "_require_device", lambda device: None)


def gradients(mesh: Mesh, policy: str, *, in_fp8: bool) -> tuple[dict[str, torch.Tensor], Executed]:
    with torch.device("meta"):
        model = Transformer(CONFIG)
    if in_fp8:
        fp8.multiply_in_fp8(model, CPU)
    recompute_layers(model, policy)
    parallelize(model, mesh, param_dtype=torch.bfloat16)
    model.to_empty(device=CPU)
    initialize(model, 1)
    tokens_BT = torch.randint(30, (2, 16), generator=torch.Generator().manual_seed(4))
    with Executed() as executed:
        model(tokens_BT).float().square().mean().backward()
    return {name: p.grad.full_tensor().clone() for name, p in model.named_parameters()}, executed


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("emulated")
def test_emulated_gradients_are_near_and_the_same_under_every_policy_without_a_product_repeated():
    with one_rank() as mesh:
        exact, _ = gradients(mesh, "none", in_fp8=False)
        rounded, executed = gradients(mesh, "none", in_fp8=True)
        of_policies = [gradients(mesh, policy, in_fp8=True) for policy in ("paper", "full")]
    assert rounded.keys() == exact.keys()
    differences = [float((rounded[name] - exact[name]).norm() / exact[name].norm()) for name in exact]
    assert 0.01 < max(differences) < 0.3  # e4m3 has 3 bits of mantissa, e5m2, for gradients, 2
    for same, _ in of_policies:
        assert all(torch.equal(same[name], rounded[name]) for name in rounded)
    again = of_policies[0][1].counts - executed.counts
    assert not [name for name in again if "mm" in name or "max" in name or "attention" in name]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("emulated")
def test_all_products_of_the_layers_are_in_8_bits_and_nothing_else_is():
    model = Transformer(CONFIG)
    fp8.multiply_in_fp8(model, CPU)
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    converted = [name for name, kind in kinds.items() if kind == "Float8Linear"]
    assert len(converted) == 7 * CONFIG.num_layers
    assert all(name.startswith("layers.") for name in converted)
    assert type(model.output) is nn.Linear


def test_devices_that_cannot_do_it_are_refused(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ResourceError, match="needs a CUDA device, this is `cpu`"):
        fp8.multiply_in_fp8(Transformer(CONFIG), CPU)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100")
    with pytest.raises(ResourceError, match=r"capability 8.9 or more, `NVIDIA A100` has 8.0"):
        fp8.multiply_in_fp8(Transformer(CONFIG), torch.device("cuda"))


def test_without_torchao_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fp8, "_require_device", lambda device: None)
    monkeypatch.setitem(sys.modules, "torchao.float8", None)
    with pytest.raises(ResourceError, match="needs torchao") as problem:
        fp8.multiply_in_fp8(Transformer(CONFIG), CPU)
    assert "criadero[fp8]" in problem.value.hint
