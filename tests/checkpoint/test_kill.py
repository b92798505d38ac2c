"""kill -9 at any moment of a save leaves a whole checkpoint, and the next start goes on from it."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import Shard, distribute_tensor

from criadero import files
from criadero.checkpoint.config import CheckpointConfig
from criadero.checkpoint.load import find_newest_good, read_state, read_tensors
from criadero.checkpoint.manifest import steps_in
from criadero.checkpoint.save import Checkpointer
from criadero.parallel.mesh import Mesh
from faults.cuts import MOMENTS
from ranks import run_until_end


def save_step(folder: Path, step: int) -> None:
    with Checkpointer(folder, CheckpointConfig(keep=1)) as checkpointer:
        weight = {"weight": torch.full((3, 5), float(step))}
        checkpointer.save(step, weight, state={"step": step}, tokens=0, config_sha256="")


def save_and_be_killed(_mesh: Mesh, folder: Path, moment: int) -> None:
    passed: list[str] = []

    def count(name: str) -> None:
        passed.append(name)
        if len(passed) == moment + 1:
            assert passed == MOMENTS[: moment + 1]
            os.kill(os.getpid(), signal.SIGKILL)

    files.on_fault_point = count
    save_step(folder, 2)


def first_save(_mesh: Mesh, folder: Path) -> None:
    save_step(folder, 1)


def check_whole(folder: Path, step: int) -> None:
    assert find_newest_good(folder) == folder / f"step-0000000{step}"
    assert read_state(folder / f"step-0000000{step}") == {"step": step}
    assert torch.equal(
        dict(read_tensors(folder / f"step-0000000{step}"))["weight"], torch.full((3, 5), float(step))
    )


@pytest.fixture(scope="module")
def one_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kill") / "one"
    (outcome,) = run_until_end(first_save, 1, folder)
    assert outcome.failure is None
    return folder


@pytest.mark.parametrize("moment", range(len(MOMENTS)), ids=lambda i: f"{i}-{MOMENTS[i]}")
def test_a_kill_leaves_a_whole_checkpoint(one_checkpoint: Path, tmp_path: Path, moment: int):
    folder = tmp_path / "checkpoints"
    shutil.copytree(one_checkpoint, folder)
    (outcome,) = run_until_end(save_and_be_killed, 1, folder, moment)
    assert outcome.exit_code == -signal.SIGKILL
    check_whole(folder, 2 if moment >= MOMENTS.index("folder-renamed") else 1)
    leftovers = [path.name for path in folder.iterdir() if ".tmp-" in path.name]
    assert leftovers or moment in (MOMENTS.index("folder-renamed"), MOMENTS.index("checkpoint-before-latest"))


def lose_rank_1(mesh: Mesh, folder: Path) -> None:
    def kill(name: str) -> None:
        if mesh.dp_rank == 1 and name == "checkpoint-file-written":
            os.kill(os.getpid(), signal.SIGKILL)

    files.on_fault_point = kill
    full = torch.arange(6.0)
    weight = distribute_tensor(full, mesh.sharding, [Shard(0)], src_data_rank=None)
    with Checkpointer(folder, CheckpointConfig()) as checkpointer:
        checkpointer.save(2, {"weight": weight}, state={}, tokens=0, config_sha256="")
        checkpointer.wait()
        dist.barrier()


def test_the_loss_of_a_rank_while_saving_leaves_the_old_checkpoint(one_checkpoint: Path, tmp_path: Path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(one_checkpoint, folder)
    first, second = run_until_end(lose_rank_1, 2, folder, collective_seconds=10)
    assert second.exit_code == -signal.SIGKILL
    assert first.exit_code == 0
    assert first.failure is not None
    assert "rank 1 died or hangs" in first.failure
    assert steps_in(folder) == [1]
    check_whole(folder, 1)
    run_until_end(first_save, 1, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["latest", "step-00000001"]
