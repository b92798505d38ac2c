"""A checkpoint written by any number of ranks loads bit-equal on any other, pieces uneven or empty."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from criadero.checkpoint.config import CheckpointConfig
from criadero.checkpoint.load import find_newest_good, load, read_tensors
from criadero.checkpoint.manifest import read_manifest
from criadero.checkpoint.save import Checkpointer
from criadero.parallel.config import ParallelConfig
from criadero.parallel.mesh import Mesh, build_mesh
from criadero.parallel.parallelize import parallelize
from ranks import run_ranks
from toy import batch, loss_of, toy


def full_tensors() -> dict[str, torch.Tensor]:
    """First dimensions 7, 5, 3 and 1: none divides by 2 and 4 ranks, some are smaller than the ranks."""
    generator = torch.Generator().manual_seed(4)
    return {
        "seven": torch.randn(7, 5, generator=generator),
        "five": torch.randn(5, 2, 3, generator=generator).bfloat16(),
        "three": torch.randn(3, generator=generator),
        "one": torch.randn(1, 4, generator=generator),
        "plain": torch.tensor(3.5),
    }


def distributed_over(mesh: DeviceMesh, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name: value.clone()
        if name == "plain"
        else distribute_tensor(value, mesh, [Shard(0)], src_data_rank=None)
        for name, value in values.items()
    }


def chain(mesh: Mesh, folder: Path) -> None:
    """1 -> 2 -> 4 -> 3 ranks, each loading what the one before wrote."""
    values = full_tensors()
    previous: Path | None = None
    rank = dist.get_rank()
    for size in (1, 2, 4, 3):
        part = DeviceMesh("cpu", list(range(size)), mesh_dim_names=("dp_shard",))
        group = dist.new_group(list(range(size)), backend="gloo")
        if rank < size:
            assert isinstance(group, dist.ProcessGroup)
            previous = load_and_save(folder / f"{size} ranks", values, part, group=group, previous=previous)
        previous = share(previous)


def share(path: Path | None) -> Path | None:
    box = [path]
    dist.broadcast_object_list(box)
    return box[0]


def load_and_save(
    folder: Path,
    values: dict[str, torch.Tensor],
    part: DeviceMesh,
    *,
    group: dist.ProcessGroup,
    previous: Path | None,
) -> Path | None:
    tensors = distributed_over(part, values)
    if previous is not None:
        tensors = distributed_over(part, {name: torch.zeros_like(value) for name, value in values.items()})
        assert load(previous, tensors, group=group) == {"size": int(previous.parent.name[0])}
    for name, tensor in tensors.items():
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        assert torch.equal(whole, values[name]), name
    checkpointer = Checkpointer(folder, CheckpointConfig(), group=group)
    checkpointer.save(1, tensors, state={"size": group.size()}, tokens=1, config_sha256="")
    checkpointer.wait()
    path = find_newest_good(folder, group=group)
    checkpointer.close()
    return path


def hybrid(mesh: Mesh, folder: Path) -> None:
    """2 replicas x 2 shards: the model and its optimizer, each slice written once."""
    mesh = build_mesh(ParallelConfig(dp_replicate=2), mesh.device)
    model = toy()
    parallelize(model, mesh, param_dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    loss_of(model, *batch(), valid=27).backward()
    optimizer.step()
    tensors = {f"model.{name}": p.detach() for name, p in model.named_parameters()}
    tensors |= {f"optimizer.{name}": optimizer.state[p]["exp_avg"] for name, p in model.named_parameters()}
    with Checkpointer(folder, CheckpointConfig()) as checkpointer:
        checkpointer.save(3, tensors, state={}, tokens=1, config_sha256="")
    path = find_newest_good(folder, group=dist.group.WORLD)
    assert path is not None
    read = dict(read_tensors(path))
    for name, tensor in tensors.items():
        assert isinstance(tensor, DTensor)
        assert tensor.placements == (Replicate(), Shard(0))
        assert torch.equal(read[name], tensor.full_tensor()), name


def both(mesh: Mesh, folder: Path) -> None:
    chain(mesh, folder)
    hybrid(mesh, folder / "hybrid")


def test_one_to_two_to_four_to_three_ranks_and_hybrid_sharding(tmp_path: Path):
    run_ranks(both, 4, tmp_path)
    for size, slices in ((1, 1), (2, 2), (4, 4), (3, 3)):
        manifest = read_manifest(tmp_path / f"{size} ranks" / "step-00000001")
        assert manifest.world_size == size
        assert len(manifest.tensors["seven"].slices) == slices
        assert len(manifest.tensors["one"].slices) == len(manifest.tensors["plain"].slices) == 1
    read = dict(read_tensors(tmp_path / "3 ranks" / "step-00000001"))
    for name, value in full_tensors().items():
        assert torch.equal(read[name], value), name
