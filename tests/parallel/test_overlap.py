"""Communication goes on while layers compute, and gives the same gradients bit by bit."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from criadero.parallel import parallelize as parallelize_module
from criadero.parallel.mesh import Mesh
from criadero.parallel.parallelize import no_sync, parallelize
from criadero.train.timeline import Event, Mark, intersect, length, read_trace, union
from ranks import run_ranks
from toy import batch, loss_of, toy

pytestmark = pytest.mark.xdist_group("ranks")


def sharded(mesh: Mesh, make: Callable[[], nn.Module], *, overlap: bool) -> nn.Module:
    model = make()
    keep = parallelize_module.overlap_communication
    if not overlap:
        parallelize_module.overlap_communication = lambda *_: None
    try:
        parallelize(model, mesh, param_dtype=torch.float32)
    finally:
        parallelize_module.overlap_communication = keep
    return model


def gradients(model: nn.Module, mesh: Mesh, *, synced_micro_batches: bool) -> list[torch.Tensor]:
    """Local gradients after two micro-batches, the first of them alone or added up over the ranks too."""
    rows = slice(mesh.dp_rank, mesh.dp_rank + 2)
    first, second = zip(*(t[rows].chunk(2) for t in batch()), strict=True)
    if synced_micro_batches:
        loss_of(model, *first, valid=27).backward()
    else:
        with no_sync(model):
            loss_of(model, *first, valid=27).backward()
    loss_of(model, *second, valid=27).backward()
    found = []
    for parameter in model.parameters():
        assert isinstance(parameter.grad, DTensor)
        found.append(parameter.grad.to_local().clone())
    model.zero_grad()
    return found


def compare_gradients(mesh: Mesh) -> bool:
    for synced_micro_batches in (False, True):
        by_form = []
        for overlap in (False, True):
            model = sharded(mesh, toy, overlap=overlap)
            for _ in range(2):
                found = gradients(model, mesh, synced_micro_batches=synced_micro_batches)
            by_form.append(found)
        for blocking, overlapped in zip(*by_form, strict=True):
            assert torch.equal(blocking, overlapped)
        assert any(gradient.abs().sum() > 0 for gradient in by_form[1])
    return True


@pytest.mark.parametrize(
    ("ranks", "replicas"), [(2, 1), (3, 1), (4, 2)], ids=["2 ranks", "3 ranks", "2 replicas of 2"]
)
def test_gradients_are_bit_equal_to_those_of_waiting_for_each_collective(ranks: int, replicas: int):
    assert run_ranks(compare_gradients, ranks, dp_replicate=replicas) == [True] * ranks


def score_between_steps(mesh: Mesh) -> bool:
    """Forward passes without gradients, as for held-out text, between two equal steps."""
    model = sharded(mesh, toy, overlap=True)
    before = gradients(model, mesh, synced_micro_batches=False)
    with torch.no_grad():
        for _ in range(3):
            model(batch()[0])
    model.reshard()
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    after = gradients(model, mesh, synced_micro_batches=False)
    return all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_scoring_between_steps_leaves_shards_and_gradients_as_they_were():
    assert run_ranks(score_between_steps, 2) == [True, True]


WIDTH, ROWS, LATE_SECONDS = 256, 512, 0.03


class Wide(nn.Module):
    """Three layers whose products take about a millisecond."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.SiLU()) for _ in range(3))
        self.output = nn.Linear(WIDTH, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.output(x).sum()


def come_late(model: nn.Module) -> None:
    """Make this rank late at every collective of a layer; the others have theirs in flight meanwhile."""

    def late(*_: object) -> None:
        time.sleep(LATE_SECONDS)

    def late_backward(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        if output.requires_grad:
            output.register_hook(late)

    for layer in model.layers:
        layer.register_forward_pre_hook(late, prepend=True)
        layer.register_forward_hook(late_backward)


def record(model: nn.Module) -> list[Event]:
    """Two passes to set FSDP2 up, then a recorded one; forward and backward are marked."""
    x = torch.randn(ROWS, WIDTH)
    for _ in range(2):
        model(x).backward()
        model.zero_grad()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        with torch.profiler.record_function(Mark.FORWARD):
            loss = model(x)
        with torch.profiler.record_function(Mark.BACKWARD):
            loss.backward()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        return read_trace(json.loads(path.read_text()))


def seconds_beside_products(events: list[Event], mark: Mark, collective: str) -> float:
    """How long a collective was in flight while matrix products ran, within a mark."""
    (within,) = (event for event in events if event.name == mark)
    products = union(
        (e.start, e.end) for e in events if e.name in {"aten::mm", "aten::addmm", "aten::addmm_"}
    )
    in_flight = union((e.start, e.end) for e in events if e.name == collective)
    return length(intersect(intersect(products, in_flight), [(within.start, within.end)]))


def compare_traces(mesh: Mesh) -> dict[str, list[float]]:
    """Seconds of gathering beside products forward, gathering and reducing beside products backward."""
    found = {}
    for form, overlap in (("blocking", False), ("overlapped", True)):
        model = sharded(mesh, Wide, overlap=overlap)
        if mesh.dp_rank == 1:
            come_late(model)
        events = record(model)
        # gloo scatters sums by summing everything.
        found[form] = [
            seconds_beside_products(events, Mark.FORWARD, "gloo:all_gather"),
            seconds_beside_products(events, Mark.BACKWARD, "gloo:all_gather"),
            seconds_beside_products(events, Mark.BACKWARD, "gloo:all_reduce"),
        ]
    return found


def test_weights_travel_and_gradients_are_added_up_while_other_layers_multiply():
    found, _ = run_ranks(compare_traces, 2)
    assert found["blocking"] == [0, 0, 0]
    assert all(seconds > 0.0001 for seconds in found["overlapped"]), found
