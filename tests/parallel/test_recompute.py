"""The paper's recomputation: same gradients to the bit, no product twice, the bytes of the formula kept."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch

from criadero.model.config import ModelConfig
from criadero.model.init import initialize
from criadero.model.rope import rope_tables
from criadero.model.transformer import Transformer
from criadero.parallel import recompute
from criadero.parallel.mesh import Mesh
from criadero.parallel.parallelize import no_sync, parallelize
from criadero.parallel.recompute import recompute_layers
from criadero.parallel.tensor_parallel import share_products
from executed import Executed
from ranks import run_ranks

POLICIES = ("none", "paper", "full")
B, T = 2, 6
CONFIG = ModelConfig(
    vocab_size=30, dim=24, num_layers=2, num_heads=6, num_kv_heads=6, hidden_dim=40, max_seq_len=T
)
GROUPED = CONFIG.model_copy(update={"num_kv_heads": 2})
D, H, F, E = CONFIG.dim, CONFIG.num_heads, CONFIG.hidden_dim, CONFIG.head_dim
PRODUCTS = 7
OWN_ATTENTION = "criadero.causal_attention.default"


@dataclass
class Trained:
    """One layer's forward and backward: its gradients, what was executed, what was alive in between."""

    gradients: list[torch.Tensor]
    executed: Executed
    kept_bytes: int

    def products(self) -> int:
        return self.executed.counts["aten.mm.default"] + self.executed.counts["aten.addmm_.default"]

    def attentions(self) -> int:
        counts = self.executed.counts
        return sum(counts[name] for name in recompute.ATTENTION)


def train_layer(policy: str, config: ModelConfig, *, dtype=torch.float32, masked: bool = False) -> Trained:
    model = Transformer(config)
    initialize(model, 1)
    model.to(dtype)
    recompute_layers(model, policy)
    layer = model.layers[0]
    tables = rope_tables(torch.arange(T).unsqueeze(0), config)
    mask_BTT = None
    if masked:
        document_BT = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 2, 2]])
        mask_BTT = (document_BT[:, :, None] == document_BT[:, None, :]) & torch.ones(T, T).tril().bool()
    x_BTD = torch.randn(B, T, config.dim, generator=torch.Generator().manual_seed(2)).to(dtype)
    x_BTD.requires_grad_()
    own = [x_BTD, tables.cos, tables.signed_sin, *layer.parameters()]
    with Executed(*own) as executed:
        out_BTD = layer(x_BTD, tables, mask_BTS=mask_BTT)
        kept_bytes = executed.alive_bytes()
        out_BTD.float().square().sum().backward()
    return Trained([x_BTD.grad, *(p.grad for p in layer.parameters())], executed, kept_bytes)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("config", [CONFIG, GROUPED], ids=["heads", "grouped-heads"])
def test_gradients_are_the_same_to_the_bit(config: ModelConfig, dtype: torch.dtype, masked: bool):
    expected = train_layer("none", config, dtype=dtype, masked=masked).gradients
    for policy in ("paper", "full"):
        actual = train_layer(policy, config, dtype=dtype, masked=masked).gradients
        assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True)), policy


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_no_product_and_no_attention_is_repeated_but_norms_and_silu_are(dtype: torch.dtype, masked: bool):
    none, paper = (train_layer(policy, CONFIG, dtype=dtype, masked=masked) for policy in ("none", "paper"))
    assert none.products() == paper.products() == 3 * PRODUCTS
    assert none.attentions() == paper.attentions() == 1
    repeated = paper.executed.counts - none.executed.counts
    assert repeated["aten.silu.default"] == 1
    assert repeated["aten.rsqrt.default"] == 2
    assert not [name for name in repeated if "mm" in name or "attention" in name]


def test_full_repeats_everything_but_the_last_product():
    full = train_layer("full", CONFIG)
    assert full.products() == 3 * PRODUCTS + PRODUCTS - 1
    assert full.attentions() == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("config", [CONFIG, GROUPED], ids=["heads", "grouped-heads"])
def test_kept_bytes_are_those_of_the_formula(config: ModelConfig, dtype: torch.dtype):
    """The layer's own output, which is alive too, stands for its input, which is not counted."""
    none, paper, full = (train_layer(policy, config, dtype=dtype) for policy in POLICIES)
    numbers = 2 * D + 2 * H * E + 2 * config.num_kv_heads * E + 2 * F
    log_sum_exp_bytes = 0 if paper.executed.counts[OWN_ATTENTION] else 4 * H
    assert paper.kept_bytes == B * T * (numbers * dtype.itemsize + log_sum_exp_bytes)
    assert full.kept_bytes == B * T * D * dtype.itemsize
    assert none.kept_bytes > paper.kept_bytes


def test_where_another_product_is_as_wide_as_the_last_one_both_are_kept():
    config = CONFIG.model_copy(update={"hidden_dim": D})
    none, paper = (train_layer(policy, config) for policy in ("none", "paper"))
    assert none.products() == paper.products()
    assert paper.kept_bytes == B * T * 4 * (7 * D + 2 * D + H)


def test_names_of_parameters_are_unchanged_and_a_copy_is_a_model_of_its_own():
    plain, model = Transformer(CONFIG), Transformer(CONFIG)
    recompute_layers(model, "paper")
    assert model.state_dict().keys() == plain.state_dict().keys()
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    tokens_BT = torch.arange(T).unsqueeze(0)
    assert model(tokens_BT).abs().sum() > 0
    assert other(tokens_BT).abs().sum() == 0


def test_without_gradients_nothing_is_kept():
    model = Transformer(CONFIG)
    recompute_layers(model, "paper")
    tokens_BT = torch.arange(T).unsqueeze(0)
    with torch.no_grad(), Executed(*model.parameters(), tokens_BT) as executed:
        logits = model(tokens_BT)
        assert executed.alive_bytes() == logits.nbytes


@pytest.mark.parametrize("name", sorted(recompute.KEPT))
def test_operators_that_are_kept_exist(name: str):
    namespace, operator, overload = name.split(".")
    assert str(getattr(getattr(getattr(torch.ops, namespace), operator), overload)) == name


def train_sharded(policy: str, mesh: Mesh) -> tuple[list[float], dict[str, int]]:
    """Three steps of two micro-batches; the losses, and how often each operator ran."""
    config = CONFIG.model_copy(update={"num_kv_heads": 2, "vocab_size": 32})
    model = Transformer(config)
    initialize(model, 1)
    share_products(model, mesh, chunks=1)
    recompute_layers(model, policy)
    parallelize(model, mesh, param_dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    chance = torch.Generator().manual_seed(mesh.dp_rank)
    losses = []
    with Executed() as executed:
        for _ in range(3):
            for last in (False, True):
                tokens_BT = torch.randint(config.vocab_size, (B, T), generator=chance)
                loss = model(tokens_BT).square().mean() - model(tokens_BT).mean()
                losses.append(loss.item())
                if last:
                    loss.backward()
                else:
                    with no_sync(model):
                        loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return losses, executed.counts


def check_sharded(mesh: Mesh) -> None:
    expected, counted = train_sharded("none", mesh)
    assert len(set(expected)) == len(expected)
    for policy in ("paper", "full"):
        losses, counts = train_sharded(policy, mesh)
        assert losses == expected, policy
        if policy == "paper":
            repeated = counts - counted
            assert not [name for name in repeated if "mm" in name or "attention" in name]
            assert not [name for name in repeated if name.startswith(("criadero", "c10d", "_c10d"))]


@pytest.mark.parametrize("layout", [{}, {"tp": 2}], ids=["fsdp", "tensor-parallel"])
def test_losses_of_two_ranks_are_the_same_to_the_bit_and_nothing_is_exchanged_twice(layout: dict[str, int]):
    run_ranks(check_sharded, 2, **layout)
