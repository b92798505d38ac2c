"""Initial weights depend on the seed, the name and the place in the whole tensor, and on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, empty
from torch.testing._internal.distributed.fake_pg import FakeStore

from criadero.model.config import ModelConfig
from criadero.model.init import initialize, normal_values
from criadero.model.presets import preset
from criadero.model.transformer import Transformer
from criadero.parallel.mesh import Mesh
from criadero.parallel.parallelize import parallelize
from ranks import run_ranks

CONFIG = ModelConfig(vocab_size=37, dim=18, num_layers=2, num_heads=3, hidden_dim=41)


def plain_model(seed: int = 3) -> Transformer:
    model = Transformer(CONFIG)
    initialize(model, seed)
    return model


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def test_values_are_standard_normal():
    values = normal_values(1, "x", np.arange(1_000_000, dtype=np.uint64))
    assert abs(values.mean()) < 4e-3  # four standard errors
    assert abs(values.std() - 1) < 3e-3
    assert abs((values**4).mean() - 3) < 0.05
    assert np.mean(np.abs(values) > 3) == pytest.approx(0.0027, abs=0.0003)
    assert 4.5 < np.abs(values).max() < 6.8
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 4e-3
    assert len(np.unique(values)) > 999_000


def test_values_do_not_depend_on_what_else_is_asked_for():
    whole = normal_values(1, "x", np.arange(200_000, dtype=np.uint64))
    rng = np.random.default_rng(12)
    for indices in (
        np.arange(16_370, 16_400),  # across a block
        np.arange(7, 199_000, 997),  # a column
        rng.permutation(200_000)[:70_001],
        np.array([199_999]),
    ):
        assert np.array_equal(normal_values(1, "x", indices.astype(np.uint64)), whole[indices])


def test_values_far_into_a_large_tensor_differ_from_those_at_its_start():
    far = np.arange(2**40, 2**40 + 1000, dtype=np.uint64)
    assert abs(np.corrcoef(normal_values(1, "x", far), normal_values(1, "x", far - 2**40))[0, 1]) < 0.15


def test_values_never_change_between_versions():
    """The numbers come from a plain Python form of splitmix64 and of Box and Muller's transform."""
    values = normal_values(2023, "embedding.weight", np.array([0, 1, 2**40], dtype=np.uint64))
    assert values.tolist() == pytest.approx(
        [0.35463369135173134, 0.7879511134840896, -0.7533926173857112], rel=1e-12
    )


def test_weights_repeat_with_the_seed_and_differ_by_seed_name_and_place():
    first, again, other = weights_of(plain_model()), weights_of(plain_model()), weights_of(plain_model(4))
    square = "layers.0.attention.q_proj.weight"
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert (first[square] != other[square]).float().mean() > 0.99
    assert (first[square] != first["layers.1.attention.q_proj.weight"]).float().mean() > 0.99
    assert (first[square] != first[square].T).float().mean() > 0.9


def test_weights_have_the_stated_spread():
    model = Transformer(preset("debug", dim=128, num_layers=4, hidden_dim=256))
    initialize(model, 5)
    for name, weight in weights_of(model).items():
        if weight.ndim == 1:
            assert torch.equal(weight, torch.ones(128))
        else:
            std = 0.02 / 8**0.5 if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02
            assert abs(weight.mean()) < 5 * std / weight.numel() ** 0.5
            assert weight.std().item() == pytest.approx(std, rel=0.02)


def test_a_model_from_the_meta_device_gets_the_same_weights():
    with torch.device("meta"):
        model = Transformer(CONFIG)
    with pytest.raises(ValueError, match=r"`embedding.weight` has no storage"):
        initialize(model, 3)
    initialize(model.to_empty(device="cpu"), 3)
    expected = weights_of(plain_model())
    assert all(torch.equal(weight, expected[name]) for name, weight in weights_of(model).items())


def test_bfloat16_weights_are_the_float32_ones_rounded():
    model = Transformer(CONFIG).bfloat16()
    initialize(model, 3)
    expected = weights_of(plain_model())
    assert all(torch.equal(weight, expected[name].bfloat16()) for name, weight in weights_of(model).items())


def shard_and_initialize(mesh: Mesh) -> dict[str, list[int]]:
    """FSDP2's cut along rows (37 and 41 divide by no number of ranks) and a cut along columns."""
    plain = plain_model()
    expected = weights_of(plain)
    with torch.device("meta"):
        model = Transformer(CONFIG)
    parallelize(model, mesh, param_dtype=torch.bfloat16)
    initialize(model.to_empty(device="cpu"), 3)
    for name, weight in weights_of(model).items():
        assert isinstance(weight, DTensor)
        assert weight.to_local().numel() < expected[name].numel()
        assert torch.equal(weight.full_tensor(), expected[name]), name
    columns = Transformer(CONFIG)
    columns.output.weight = nn.Parameter(
        empty(37, 18, device_mesh=mesh.sharding, placements=[Shard(1)])  # type: ignore[arg-type]
    )
    initialize(columns, 3)
    assert torch.equal(columns.output.weight.full_tensor(), expected["output.weight"])
    check_sharded_forward(model, plain)
    return {name: list(weight.to_local().shape) for name, weight in weights_of(model).items()}


def check_sharded_forward(model: Transformer, plain: Transformer) -> None:
    """Layers gathered in bfloat16 compute what a bfloat16 model does; the head gets the whole weight."""
    tokens_BT = torch.arange(10).reshape(2, 5)
    logits_BTV, plain_BTV = model(tokens_BT, head=nn.functional.linear), plain.bfloat16()(tokens_BT)
    assert torch.equal(logits_BTV, plain_BTV)
    for logits in (logits_BTV, plain_BTV):
        logits.float().logsumexp(-1).sum().backward()
    for sharded, whole in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(
            sharded.grad.full_tensor(), 2 * whole.grad.float()
        )  # both ranks had the same batch


def test_two_gloo_ranks_hold_cuts_of_the_same_tensors_and_compute_the_same_logits():
    shapes = run_ranks(shard_and_initialize, 2)
    assert [shape["embedding.weight"] for shape in shapes] == [[19, 18], [18, 18]]


@pytest.fixture
def pretended_rank(request):
    """One of four ranks that do not exist: collectives do nothing, so only local cuts may be looked at."""
    dist.init_process_group("fake", rank=request.param, world_size=4, store=FakeStore())
    yield request.param
    dist.destroy_process_group()


def cut(weight: nn.Parameter, mesh: DeviceMesh, dim: int | None) -> nn.Parameter:
    placement = Replicate() if dim is None else Shard(dim)
    piece = weight if dim is None else weight.chunk(mesh.size(), dim)[mesh.get_local_rank()]
    local = piece.detach().clone(memory_format=torch.contiguous_format)
    whole = {"shape": weight.shape, "stride": weight.stride()}
    return nn.Parameter(DTensor.from_local(local, mesh, [placement], run_check=False, **whole))


@pytest.mark.parametrize("pretended_rank", range(4), indirect=True)
def test_shards_cut_by_columns_and_rows_on_two_mesh_dimensions_are_the_same_numbers(pretended_rank: int):
    """Tensor parallelism cuts rows or columns, then FSDP2 cuts the rows of that: sometimes twice the same."""
    # Names of its own, because torch keeps one mesh per set of names in a process, with its first rank.
    dp, tp = f"dp{pretended_rank}", f"tp{pretended_rank}"
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=(dp, tp))
    model = plain_model()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight = cut(module.weight, mesh[tp], 1 if name.endswith(("o_proj", "down_proj")) else 0)
        elif not list(module.children()):
            module.weight = cut(module.weight, mesh[tp], None)
    for module in (*model.layers, model):
        fully_shard(module, mesh=mesh[dp])
    expected = {name: weight.to_local().clone() for name, weight in weights_of(model).items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.to_local().zero_()
    initialize(model, 3)
    for name, weight in weights_of(model).items():
        assert torch.equal(weight.to_local(), expected[name]), name
