"""What `criadero train CONFIG --dry-run` prints: the cost of a run, for people or as one JSON object.

Entry point: `print_cost`. It prints first and refuses after that, so that the numbers of a run that does not
fit are there too. What the numbers rest on is printed with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from criadero.cli.output import print_json
from criadero.errors import ResourceError

if TYPE_CHECKING:
    from criadero.planner.devices import Device
    from criadero.train.config import RunConfig
    from criadero.train.estimate import DeviceKind, Estimate

_NVIDIA_DRIVER = Path("/dev/nvidiactl")
_COUNTS = (
    "total_steps", "tokens", "tokens_per_step", "batch_sequences", "micro_batches", "micro_batch_sequences",
    "flops_per_token", "flops_per_token_with_attention", "total_flops",
)  # fmt: skip


def print_cost(
    config: RunConfig,
    environ: Mapping[str, str],
    *,
    device_name: str | None,
    fake_world_size: int | None,
    json: bool,
) -> None:
    """Print what the run would cost; nothing is written.

    Args:
        environ: where torchrun and Slurm say how many ranks there are.
        device_name: a GPU whose memory and speed are reckoned with; None is this machine, speed unknown.
        fake_world_size: build rank 0 of so many ranks, and read its sizes off.

    Raises:
        ResourceError: the run does not fit; the hint names settings that do.
        UsageError: nobody knows this device.
    """
    from criadero.planner.devices import device_of
    from criadero.train.estimate import epochs_by_source, estimate

    device = None if device_name is None else device_of(device_name)
    kind = _kind(config, device)
    ranks, assumed = _ranks(config, environ, fake_world_size)
    cost = estimate(config, world_size=ranks, device=kind)
    if fake_world_size is not None:
        cost = _as_built(config, cost, fake_world_size)
    epochs = epochs_by_source(config)
    result = {
        **cost.to_json(),
        "recompute": config.train.recompute,
        "memory_of": kind if device is None else device.name,
        "speed": None if device is None else cost.speed_on(device),
        "epochs": epochs,
        "assumed": [assumed, *_assumptions(config, device, epochs)],
    }
    # Without a named GPU, memory of other machines or of a GPU here is unknown: not checked is not a yes.
    checked = device is not None or (fake_world_size is None and kind == "cpu")
    problem = _why_not(config, cost, environ, device=device, kind=kind) if checked else None
    result["fits"] = problem is None if checked else None
    if not checked:
        result["assumed"].append("whether it fits was not checked: name a GPU with --device")
    if json:
        print_json(result)
    else:
        typer.echo("\n".join(_for_people(result)))
    if problem is not None:
        raise problem


def _kind(config: RunConfig, device: Device | None) -> DeviceKind:
    """Whose memory is reckoned with: the driver's device file answers for `auto` without loading torch."""
    gpu = config.train.device == "cuda" or (config.train.device == "auto" and _NVIDIA_DRIVER.exists())
    return "cuda" if device is not None or gpu else "cpu"


def _ranks(config: RunConfig, environ: Mapping[str, str], fake_world_size: int | None) -> tuple[int, str]:
    """Return the number of ranks, and where it is from."""
    from criadero.train.estimate import least_ranks

    if fake_world_size is not None:
        return fake_world_size, f"{fake_world_size} ranks by --fake-world-size"
    launched = environ.get("WORLD_SIZE", "")
    if launched.isdecimal() and int(launched) > 0:
        return int(launched), f"{launched} ranks by WORLD_SIZE"
    ranks = least_ranks(config.parallel)
    return ranks, f"{ranks} rank{'s' * (ranks > 1)}, the fewest that [parallel] can have"


def _as_built(config: RunConfig, cost: Estimate, world_size: int) -> Estimate:
    from criadero.train.estimate import with_real_shards
    from criadero.train.fake_world import build_on_fake_ranks

    built = build_on_fake_ranks(config, world_size)
    return with_real_shards(
        cost,
        weights=built.weights,
        gradients=built.gradients,
        optimizer_states=built.optimizer_states,
    )


def _assumptions(config: RunConfig, device: Device | None, epochs: dict[str, float] | None) -> Iterable[str]:
    from criadero.train.estimate import PAPER_MFU

    if device is None:
        yield "speed is unknown: name a GPU with --device, or run some steps"
    else:
        yield f"{PAPER_MFU:.1%} of the bfloat16 peak by 6N, what the paper's 65B reached on A100"
        if config.train.fp8:
            yield "what 8-bit products gain is not reckoned with"
        yield "memory on a GPU is reckoned, not measured; 2 GB of it are left to CUDA and NCCL"
    yield "bytes sent are those of rings"
    if epochs is None:
        missing = sum(not source.path.exists() for source in config.data.sources)
        of = len(config.data.sources)
        yield f"epochs are unknown: the shards of {missing} of {of} sources are not there"


def _why_not(
    config: RunConfig,
    cost: Estimate,
    environ: Mapping[str, str],
    *,
    device: Device | None,
    kind: DeviceKind,
) -> ResourceError | None:
    """Return the error that says the run does not fit on the named GPU or else on this machine."""
    from criadero.planner.devices import RESERVED_BYTES
    from criadero.train.estimate import require_memory
    from criadero.train.free_memory import free_memory_bytes

    if device is not None:
        free_bytes, where = device.memory_bytes - RESERVED_BYTES, f"one {device.name}"
    else:
        local = environ.get("LOCAL_WORLD_SIZE", "")
        ranks_here = int(local) if local.isdecimal() else cost.ranks
        shared = f" for each of {ranks_here} ranks" if ranks_here > 1 else ""
        free_bytes, where = free_memory_bytes() // max(1, ranks_here), f"this machine{shared}"
    try:
        require_memory(config, cost, free_bytes, device=kind, where=where)
    except ResourceError as problem:
        return problem
    return None


def _for_people(result: dict[str, Any]) -> Iterable[str]:
    from criadero.files import format_bytes

    for name in ("parameters", "ranks"):
        yield f"{name:32} {result[name]:,}"
    yield f"{'mesh':32} " + " x ".join(f"{name} {size}" for name, size in result["mesh"].items())
    for name in _COUNTS:
        yield f"{name:32} {result[name]:,}"
    for title, key in (
        ("memory of a rank", "bytes_per_rank"),
        ("sent by a rank in a step", "bytes_sent_per_step"),
    ):
        yield f"{title}:"
        for name, size in result[key].items():
            yield f"  {name:30} {size:,}  ({format_bytes(size)})"
    yield f"{'disk_bytes':32} {result['disk_bytes']:,}  ({format_bytes(result['disk_bytes'])})"
    speed = result["speed"]
    if speed is None:
        yield f"{'tokens_per_second':32} unknown"
    else:
        yield f"{'tokens_per_second':32} {speed['tokens_per_second']:,.0f}"
        yield f"{'days':32} {speed['days']:,.1f}"
    for name, times in (result["epochs"] or {}).items():
        yield f"{'epochs of ' + name:32} {times:.2f}"
    yield "assumed:"
    yield from (f"  {line}" for line in result["assumed"])
