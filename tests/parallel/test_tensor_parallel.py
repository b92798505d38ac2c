"""Ranks that share matrix products give the weights, gradients, norms and steps of one process.

One model throughout: grouped heads and sizes that shards cut unevenly (of 5 and 11 rows, for one).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.profiler import ProfilerActivity, profile

from criadero.checkpoint.config import CheckpointConfig
from criadero.checkpoint.load import load
from criadero.checkpoint.save import Checkpointer
from criadero.errors import DataError
from criadero.model.config import ModelConfig
from criadero.model.init import initialize
from criadero.model.layout import WHOLE
from criadero.model.transformer import Transformer
from criadero.parallel import collectives, exchange
from criadero.parallel.config import ParallelConfig
from criadero.parallel.mesh import Mesh, build_mesh
from criadero.parallel.parallelize import no_sync, parallelize
from criadero.parallel.recompute import recompute_layers
from criadero.parallel.tensor_parallel import share_products
from criadero.shards.batch import IGNORED, Batch
from criadero.train.config import OptimizerConfig
from criadero.train.optimizer import make_optimizer, optimizer_tensors
from criadero.train.step import summed_loss
from ranks import run_ranks

SEQ_LEN = 12
LATE_SECONDS = 0.6  # far more than a loaded machine keeps the other rank from its next product
LAYOUTS_OF_4 = ({"tp": 2}, {"tp": 2, "dp_replicate": 2}, {"tp": 4}, {})


@cache
def sizes(*, tie_embeddings: bool = False) -> ModelConfig:
    return ModelConfig(
        vocab_size=44,
        dim=20,
        num_layers=2,
        num_heads=8,
        num_kv_heads=4,
        head_dim=6,
        hidden_dim=44,
        max_seq_len=64,
        tie_embeddings=tie_embeddings,
        norm_eps=1e-5,
    )


def batch_of(rows: range) -> Batch:
    """Rows of the same eight sequences of packed documents; some targets are ignored."""
    generator = torch.Generator().manual_seed(1)
    tokens_BT = torch.randint(44, (8, SEQ_LEN + 1), generator=generator)
    targets_BT = tokens_BT[:, 1:].clone()
    targets_BT[::3, -4:] = IGNORED
    starts_BT = torch.rand(8, SEQ_LEN, generator=generator) < 0.2
    starts_BT[:, 0] = False
    document_BT = starts_BT.long().cumsum(1)
    place_T = torch.arange(SEQ_LEN)
    positions_BT = place_T - (place_T * starts_BT).cummax(1).values
    chosen = torch.tensor(list(rows))
    targets_BT = targets_BT[chosen]
    return Batch(
        tokens_BT[chosen, :-1],
        targets_BT,
        tuple(rows),
        int((targets_BT != IGNORED).sum()),
        document_BT[chosen],
        positions_BT[chosen],
    )


def build(
    mesh: Mesh,
    *,
    chunks: int = 1,
    tie_embeddings: bool = False,
    dtype: torch.dtype = torch.float32,
    recompute: str = "none",
    backend: str | None = None,
) -> Transformer:
    with torch.device("meta"):
        model = Transformer(sizes(tie_embeddings=tie_embeddings))
    share_products(model, mesh, chunks=chunks)
    recompute_layers(model, recompute)
    for layer in model.layers if backend else ():
        layer.compile(backend=backend, fullgraph=True)
    parallelize(model, mesh, param_dtype=dtype)
    model.to_empty(device="cpu")
    initialize(model, 3)
    return model


@cache
def plain(*, tie_embeddings: bool = False) -> tuple[Transformer, float]:
    """A model nobody shares, with gradients, and its loss, by torch's own cross-entropy."""
    model = Transformer(sizes(tie_embeddings=tie_embeddings))
    initialize(model, 3)
    assert model.layout is WHOLE
    batch = batch_of(range(8))
    document_B1T = batch.document_BT.unsqueeze(1)
    mask_BTT = (batch.document_BT.unsqueeze(2) == document_B1T).tril()
    logits_BTV = model(batch.tokens_BT, positions_BT=batch.positions_BT, mask_BTT=mask_BTT)
    loss = nn.functional.cross_entropy(
        logits_BTV.flatten(0, 1), batch.targets_BT.flatten(), ignore_index=IGNORED
    )
    loss.backward()
    return model, loss.item()


def backward(model: nn.Module, mesh: Mesh, *, micro_batches: int = 1) -> float:
    """Forward and backward over this rank's rows of the batch; returns the mean loss of all."""
    rows = range(8)[mesh.dp_rank :: mesh.dp_size]
    tokens = batch_of(range(8)).num_targets
    losses = []
    for number in range(micro_batches):
        batch = batch_of(rows[number::micro_batches])
        if number < micro_batches - 1:
            with no_sync(model):
                losses.append(summed_loss(model, batch, mesh=mesh, chunk_tokens=7) / tokens)
                losses[-1].backward()
        else:
            losses.append(summed_loss(model, batch, mesh=mesh, chunk_tokens=7) / tokens)
            losses[-1].backward()
    return float(collectives.sum_over_batch(torch.stack(losses).sum().detach(), mesh))


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.full_tensor() for name, p in model.named_parameters()}


def check_gradients(mesh: Mesh, *, tie_embeddings: bool, micro_batches: int, **options: object) -> None:
    reference, expected_loss = plain(tie_embeddings=tie_embeddings)
    model = build(mesh, tie_embeddings=tie_embeddings, **options)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.full_tensor(), reference.get_parameter(name)), name
    assert backward(model, mesh, micro_batches=micro_batches) == pytest.approx(expected_loss, abs=1e-6)
    expected = {name: p.grad for name, p in reference.named_parameters()}
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-6, msg=name)
    norm = float(torch.sqrt(sum((g.double() ** 2).sum() for g in expected.values())))
    assert collectives.clip_gradients(model.parameters(), norm / 2, mesh=mesh) == pytest.approx(
        norm, rel=1e-6
    )
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name] / 2, rtol=1e-4, atol=1e-7, msg=name)


def check_bfloat16(mesh: Mesh) -> None:
    reference, expected_loss = plain()
    for micro_batches in (1, 2):  # the second adds up in float32 what the first left in it
        model = build(mesh, dtype=torch.bfloat16)
        assert backward(model, mesh, micro_batches=micro_batches) == pytest.approx(expected_loss, abs=2e-3)
        for name, gradient in gradients(model).items():
            assert gradient.dtype == torch.float32
            expected = reference.get_parameter(name).grad
            assert float((gradient - expected).norm() / expected.norm()) < 0.02, name


def check_layout(mesh: Mesh) -> None:
    check_gradients(mesh, tie_embeddings=False, micro_batches=2)
    check_gradients(mesh, tie_embeddings=True, micro_batches=1, chunks=3)


def on_two_ranks(mesh: Mesh) -> None:
    shared = build_mesh(ParallelConfig(tp=2), mesh.device)
    check_layout(shared)
    check_layout(mesh)
    check_bfloat16(shared)
    check_chunks(shared)
    check_recomputation(shared)
    check_sums(shared)


def on_four_ranks(mesh: Mesh) -> None:
    for layout in LAYOUTS_OF_4[:3]:
        check_layout(build_mesh(ParallelConfig(**layout), mesh.device))


def check_chunks(mesh: Mesh) -> None:
    """Blocks of the sequence lie elsewhere; the numbers stay."""
    found = []
    for chunks in (1, 2):
        model = build(mesh, chunks=chunks)
        backward(model, mesh)
        found.append(gradients(model))
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=0, atol=1e-7, msg=name)


def check_recomputation(mesh: Mesh) -> None:
    """What is kept or repeated decides about memory alone."""
    found = []
    for recompute in ("none", "paper", "full"):
        model = build(mesh, recompute=recompute)
        backward(model, mesh)
        found.append(gradients(model))
    for name, gradient in found[0].items():
        assert torch.equal(found[1][name], gradient), name
        assert torch.equal(found[2][name], gradient), name


def check_sums(mesh: Mesh) -> None:
    rank = dist.get_rank()
    assert (mesh.dp_rank, mesh.dp_size) == (0, 1)
    assert collectives.sum_over_batch(5, mesh) == 5
    assert collectives.sum_over_ranks(5 + rank, mesh) == 11
    assert collectives.sum_over_ranks(torch.ones(2), mesh).tolist() == [2, 2]
    assert collectives.any_rank(rank == 1, mesh)


def test_gradients_and_norms_on_two_ranks_are_those_of_one_process():
    run_ranks(on_two_ranks, 2)


def test_gradients_and_norms_on_four_ranks_are_those_of_one_process():
    run_ranks(on_four_ranks, 4)


def one_step(mesh: Mesh) -> dict[str, Tensor]:
    """Weights and moments after an update, as a checkpoint holds them."""
    model = build(mesh)
    optimizer = make_optimizer(model, OptimizerConfig())
    backward(model, mesh)
    optimizer.step()
    return tensors_of(model, optimizer)


def tensors_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    weights = {name: p.detach() for name, p in model.named_parameters()}
    return {**weights, **optimizer_tensors(model, optimizer)}


def whole(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.full_tensor() if isinstance(t, DTensor) else t for name, t in tensors.items()}


def save_and_load_everywhere(mesh: Mesh, folder: Path) -> dict[str, np.ndarray]:
    """Write at 2 x 2; read in each layout what the one before wrote, and write it again."""
    expected, path = None, None
    for step, layout in enumerate((LAYOUTS_OF_4[0], *LAYOUTS_OF_4[1:], LAYOUTS_OF_4[0])):
        mesh_here = build_mesh(ParallelConfig(**layout), mesh.device)
        if path is None:
            tensors = one_step(mesh_here)
            expected = whole(tensors)
        else:
            model = build(mesh_here)
            tensors = tensors_of(model, make_optimizer(model, OptimizerConfig()))
            load(path, tensors, group=dist.group.WORLD)
            found = whole(tensors)
            assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
        with Checkpointer(folder / str(step), CheckpointConfig()) as checkpointer:
            checkpointer.save(1, tensors, state={}, tokens=1, config_sha256="0" * 64)
            checkpointer.wait()
        path = next((folder / str(step)).glob("step-*"))
        dist.barrier()
    return {name: tensor.numpy() for name, tensor in expected.items()}


def test_checkpoints_go_from_layout_to_layout_bit_equal(tmp_path: Path):
    expected = run_ranks(save_and_load_everywhere, 4, tmp_path)[0]
    model = Transformer(sizes())
    tensors = tensors_of(model, make_optimizer(model, OptimizerConfig()))
    load(next((tmp_path / "4").glob("step-*")), tensors)
    assert tensors.keys() == expected.keys()
    assert any(name.endswith("exp_avg_sq") for name in tensors)
    for name, tensor in expected.items():
        assert np.array_equal(tensors[name].numpy(), tensor), name


def refused(mesh: Mesh) -> tuple[str, int]:
    model = build(mesh, chunks=2)
    with pytest.raises(DataError, match="sequence of 10 tokens") as problem:
        model(torch.zeros(1, 10, dtype=torch.int64))
    return problem.value.hint, collectives.sum_over_ranks(1, mesh)


def test_a_sequence_that_cannot_be_cut_is_refused_and_the_ranks_go_on():
    hint = "pad it to a multiple of 4, with targets that are ignored"
    assert run_ranks(refused, 2, tp=2) == [(hint, 2), (hint, 2)]


def compiled(mesh: Mesh) -> None:
    """Each layer is one graph, forward and backward, with no break."""
    found = []
    for backend in (None, "aot_eager"):
        model = build(mesh, backend=backend)
        backward(model, mesh)
        found.append(gradients(model))
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=0, atol=1e-6, msg=name)


def test_a_layer_that_ranks_share_is_traced_as_one_graph():
    run_ranks(compiled, 2, tp=2)


def kept(mesh: Mesh) -> dict[int, int]:
    """How many tensors of each size a layer keeps for its backward, weights aside."""
    model = build(mesh)
    sizes_kept: dict[int, int] = {}
    weights = {size for p in model.parameters() for size in (p.numel(), p.to_local().numel())}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.numel() not in weights:
            sizes_kept[tensor.numel()] = sizes_kept.get(tensor.numel(), 0) + 1
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        summed_loss(model, batch_of(range(3)), mesh=mesh, chunk_tokens=7)
    return sizes_kept


def test_between_products_a_rank_keeps_its_part_of_the_sequence_only():
    whole_hidden = 3 * SEQ_LEN * 20
    for sizes_kept in run_ranks(kept, 2, tp=2):
        assert sizes_kept[whole_hidden // 2] > 8
        # One is whole: the gradient of the last hidden states, formed with the loss.
        assert sizes_kept[whole_hidden] == 1


Spans = list[tuple[float, float]]
EVENTS = (
    "aten::mm",
    "c10d_functional::all_gather_into_tensor",
    "gloo:all_gather",
    "c10d_functional::reduce_scatter_tensor",
    "gloo:all_reduce",  # gloo adds up and scatters by an all-reduce
)


def traced(mesh: Mesh) -> list[dict[str, Spans]]:
    """When collectives were in flight and matrices multiplied, on this rank, in three products.

    Rank 1 comes late to each, and late to each sum in it, so that what rank 0 began before it waited is in
    flight for long.
    """
    late = dist.get_rank() == 1
    if late:
        start_sum = exchange._start_sum
        exchange._start_sum = lambda *args: (time.sleep(LATE_SECONDS), start_sum(*args))[1]
    group = mesh.tensor_parallel.get_group().group_name
    x_BtD, x_BTF = torch.randn(1, 128, 256, requires_grad=True), torch.randn(1, 256, 512)
    by_rows, by_columns = (torch.randn(shape, requires_grad=True) for shape in ((512, 256), (256, 512)))
    products = exchange.gather_and_multiply(x_BtD, [by_rows], group, 1)
    works = (
        lambda: exchange.multiply_and_add_up(x_BTF, by_columns, group, 2),
        lambda: exchange.gather_and_multiply(x_BtD, [by_rows], group, 2),
        lambda: torch.autograd.backward(products, [torch.ones(1, 256, 512)]),
    )
    return [spans_of(work, late=late) for work in works]


def spans_of(work: Callable[[], object], *, late: bool) -> dict[str, Spans]:
    """When each product ran, and each collective was in flight: from its call until gloo was done with it.

    Not from when gloo began with it: its threads may come late to that on a loaded machine.
    """
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        dist.barrier()
        time.sleep(LATE_SECONDS * late)
        work()
    events = sorted(trace.events(), key=lambda event: event.time_range.start)
    ranges = {name: [e.time_range for e in events if e.name.endswith(name)] for name in EVENTS}
    found = {"product": [(span.start, span.end) for span in ranges["aten::mm"]]}
    for name, called, done in (
        ("gather", "c10d_functional::all_gather_into_tensor", "gloo:all_gather"),
        ("sum", "c10d_functional::reduce_scatter_tensor", "gloo:all_reduce"),
    ):
        pairs = zip(ranges[called], ranges[done], strict=True)
        found[name] = [(call.start, end.end) for call, end in pairs]
    return found


def meet(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def test_collectives_are_in_flight_while_matrices_are_multiplied():
    summed_in_blocks, gathered_in_blocks, backward_in_one = run_ranks(traced, 2, tp=2)[0]
    # The first block is added up while the second is multiplied.
    assert len(summed_in_blocks["sum"]) == len(summed_in_blocks["product"]) == 2
    assert meet(summed_in_blocks["sum"][0], summed_in_blocks["product"][1])
    # The second block is on its way before the first is multiplied.
    assert len(gathered_in_blocks["gather"]) == len(gathered_in_blocks["product"]) == 2
    assert gathered_in_blocks["gather"][1][0] < gathered_in_blocks["product"][0][0]
    # Backward: gathered again while the gradient of x is formed, which is added up while the weight's is.
    d_x, d_weight = backward_in_one["product"]
    assert [meet(span, d_x) for span in backward_in_one["gather"]] == [True]
    assert [meet(span, d_weight) for span in backward_in_one["sum"]] == [True]
