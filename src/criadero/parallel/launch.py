"""Joining and leaving the process group. Entry points: `launch_from`, `distributed`.

`launch_from` reads torchrun's or Slurm's variables out of a mapping; `distributed` is the block inside
which ranks talk to each other, one rank included, so that a single code path exists. Its end is the only
teardown there is. First step of `parallel`; the mesh comes next.
"""

from __future__ import annotations

import gc
import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore
from torch.distributed.rendezvous import rendezvous

from criadero.errors import DistributedError, ResourceError, StoppedEarly
from criadero.parallel.failure import explain
from criadero.parallel.meeting import meet
from criadero.parallel.watchdog import Watchdog, collective_timeout


@dataclass(frozen=True)
class Launch:
    """Where this process stands among the processes of the run.

    Attributes:
        rank: 0..world_size-1 over all machines.
        local_rank: index on this machine, which is also the index of its GPU.
        world_size: number of processes.
        address: `host:port` at which the ranks meet; None for a single process, which needs no network.
    """

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    address: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size or self.local_rank < 0:
            raise DistributedError(
                f"rank {self.rank} (local rank {self.local_rank}) is not one of {self.world_size} ranks"
            )
        if self.world_size > 1 and self.address is None:
            raise DistributedError(
                f"{self.world_size} ranks have no address to meet at",
                hint="start with torchrun, srun, or set MASTER_ADDR and MASTER_PORT",
            )


def launch_from(environ: Mapping[str, str]) -> Launch:
    """Read what torchrun or `srun` says about this process; a plain start gives one rank.

    Inside an `sbatch` script without `srun`, Slurm announces all tasks of the job but starts one process:
    only the variables of a job step count.

    Raises:
        DistributedError: variables are missing, not whole numbers or contradict each other.
    """
    if "RANK" in environ or "WORLD_SIZE" in environ:
        rank, world_size = _number(environ, "RANK"), _number(environ, "WORLD_SIZE")
        return Launch(rank, _number(environ, "LOCAL_RANK", rank), world_size, _address(environ, world_size))
    if "SLURM_PROCID" in environ and "SLURM_STEP_NUM_TASKS" in environ:
        rank, world_size = _number(environ, "SLURM_PROCID"), _number(environ, "SLURM_STEP_NUM_TASKS")
        local_rank = _number(environ, "SLURM_LOCALID")
        return Launch(rank, local_rank, world_size, _address(environ, world_size))
    return Launch()


def _number(environ: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environ.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.strip().isdecimal():
        found = "missing" if text is None else repr(text)
        raise DistributedError(
            f"the launch variable `{name}` is {found}, expected a whole number",
            hint="torchrun sets RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT",
        )
    return int(text)


def _address(environ: Mapping[str, str], world_size: int) -> str | None:
    if world_size == 1 and "MASTER_ADDR" not in environ:
        return None
    host = environ.get("MASTER_ADDR") or _first_slurm_host(environ)
    if host is None:
        return None
    if "MASTER_PORT" not in environ and "SLURM_JOB_ID" in environ:
        # The same on all ranks, different for jobs that share a machine.
        return f"{host}:{20000 + _number(environ, 'SLURM_JOB_ID') % 20000}"
    return f"{host}:{_number(environ, 'MASTER_PORT')}"


def _first_slurm_host(environ: Mapping[str, str]) -> str | None:
    """Return the first host of a list such as `a1,b[003-005,9]`: the machine of rank 0."""
    hosts = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST") or ""
    match = re.match(r"([^,\[\s]+)(?:\[(\w+)[^\]]*\]([^,\[\s]*))?", hosts)
    return "".join(part or "" for part in match.groups()) if match else None


@contextmanager
def distributed(
    launch: Launch, device: torch.device, *, timeout_seconds: float, hang_report: Path | None = None
) -> Iterator[torch.device]:
    """Join the process group, yield this rank's own device, leave the group again.

    CPU tensors travel by gloo, CUDA tensors by NCCL. Models, meshes and checkpoint groups must be local to
    a function called inside the block: what still refers to the group when it is destroyed makes gloo
    abort the process at exit now and then.

    Args:
        hang_report: file for what every rank was doing, should one keep the others waiting.

    Raises:
        DistributedError: the ranks did not meet, or one of them died, failed or hangs (it is named).
        ResourceError: this machine has fewer GPUs than ranks.
    """
    device = _own_device(launch, device)
    _join(launch, device, timeout_seconds=timeout_seconds)
    watchdog = _start_watchdog(launch, device, timeout_seconds=timeout_seconds, report=hang_report)
    try:
        yield device
    except StoppedEarly as outcome:
        # All ranks agreed to stop at this step, so this is an orderly end.
        traceback.clear_frames(outcome.__traceback__)
        _leave_together(watchdog)
        raise
    except BaseException as problem:
        explanation = explain(problem, rank=launch.rank, world_size=launch.world_size, watchdog=watchdog)
        traceback.clear_frames(problem.__traceback__)
        _leave_alone(device, watchdog)
        if explanation is not None:
            raise explanation from problem
        raise
    _leave_together(watchdog)


def _start_watchdog(
    launch: Launch, device: torch.device, *, timeout_seconds: float, report: Path | None
) -> Watchdog | None:
    """Start what answers for this rank while it trains; None for a single rank, which nobody waits for."""
    if launch.world_size == 1:
        return None
    watchdog = Watchdog(
        dist.distributed_c10d._get_default_store(),
        rank=launch.rank,
        world_size=launch.world_size,
        report=report,
        step_seconds=timeout_seconds if device.type == "cuda" else None,
    )
    watchdog.start()
    return watchdog


def _leave_together(watchdog: Watchdog | None) -> None:
    """Tear down in the only order that is safe: meet, drop what refers to the group, destroy it."""
    if watchdog is not None:
        watchdog.stop()
    dist.barrier()
    gc.collect()
    dist.destroy_process_group()


def _leave_alone(device: torch.device, watchdog: Watchdog | None) -> None:
    """Close this rank's connections without a collective: the others may be anywhere.

    They notice at once. Shutting NCCL down waits for collectives that will never come, so on CUDA the end
    of the process does it.
    """
    if watchdog is not None:
        watchdog.stop()
    gc.collect()
    if device.type != "cuda" or dist.get_world_size() == 1:
        dist.destroy_process_group()


def _own_device(launch: Launch, device: torch.device) -> torch.device:
    if device.type != "cuda":
        return device
    available = torch.cuda.device_count()
    if launch.local_rank >= available:
        raise ResourceError(
            f"local rank {launch.local_rank} has no GPU: this machine has {available}",
            hint="start as many processes per machine as it has GPUs",
        )
    own = torch.device("cuda", launch.local_rank)
    torch.cuda.set_device(own)
    return own


def _join(launch: Launch, device: torch.device, *, timeout_seconds: float) -> None:
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    timeout = collective_timeout(device, timeout_seconds)
    try:
        if launch.address is None:
            dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1, timeout=timeout)
        else:
            rank, size = launch.rank, launch.world_size
            url = f"tcp://{launch.address}?rank={rank}&world_size={size}"
            store, _, _ = next(rendezvous(url, timeout=timeout))
            store = meet(store, rank=rank, world_size=size, timeout_seconds=timeout.total_seconds())
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    except (RuntimeError, ValueError) as problem:
        raise DistributedError(
            f"rank {launch.rank} of {launch.world_size} did not meet the others at "
            f"`{launch.address}`: {problem}",
            hint="check that all ranks were started and that the address can be reached from this machine",
        ) from problem
