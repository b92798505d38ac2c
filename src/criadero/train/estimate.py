"""What a run will cost, before it starts: memory a rank, FLOPs, communication, time, epochs, disk.

Entry points: `estimate` for the numbers (`criadero train CONFIG --dry-run` prints them), `require_memory`,
which refuses what cannot fit and names the setting that would, and `require_resources`, the check at
the start of a run. The arithmetic is `planner`'s; this module hands it a RunConfig. No torch here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from criadero import files
from criadero.errors import ResourceError
from criadero.model.flops import flops_per_token
from criadero.model.presets import num_parameters
from criadero.parallel.config import ParallelConfig
from criadero.planner.communication import Collective, communication
from criadero.planner.devices import Device
from criadero.planner.memory import Memory, memory_per_rank
from criadero.planner.step import RankStep
from criadero.train.config import RunConfig
from criadero.train.free_memory import free_gpu_bytes, free_memory_bytes

DeviceKind = Literal["cpu", "cuda"]

_FLOAT32_BYTES = 4
_SAVED_COPIES = 3  # weights and both moments
# LLaMA 2.4: 380 tokens a second and A100 for 65B; 6N x 380 is this part of the peak.
PAPER_MFU = 0.478
_SECONDS_PER_DAY = 86_400
_RECOMPUTE = ("none", "paper", "full")  # each keeps less than the one before
_IN_JSON = (
    "parameters", "ranks", "mesh", "micro_batch_sequences", "micro_batches", "total_steps", "tokens",
    "tokens_per_step", "batch_sequences", "flops_per_token", "flops_per_token_with_attention", "total_flops",
)  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """Cost of a run. `memory` and `collectives` are those of one rank, the latter of one step."""

    parameters: int
    layout: ParallelConfig
    micro_batch_sequences: int
    micro_batches: int
    total_steps: int
    tokens: int
    tokens_per_step: int
    batch_sequences: int
    flops_per_token: int
    flops_per_token_with_attention: int
    memory: Memory
    collectives: tuple[Collective, ...]
    disk_bytes: int

    @property
    def ranks(self) -> int:
        """All of them."""
        return self.layout.dp_replicate * self.layout.dp_shard * self.layout.tp

    @property
    def mesh(self) -> dict[str, int]:
        """Size of each dimension by name."""
        return {name: getattr(self.layout, name) for name in ("dp_replicate", "dp_shard", "tp")}

    @property
    def total_flops(self) -> int:
        """Of the whole budget, by 6N."""
        return self.flops_per_token * self.tokens

    def bytes_sent_per_step(self) -> dict[str, int]:
        """What a rank sends in one step by kind of collective, and `total`; a ring is assumed."""
        kinds = ("all_gather", "reduce_scatter", "all_reduce")
        sent = {
            kind: round(sum(one.sent_bytes for one in self.collectives if one.kind == kind)) for kind in kinds
        }
        return {**sent, "total": sum(sent.values())}

    def speed_on(self, device: Device, *, mfu: float = PAPER_MFU) -> dict[str, Any]:
        """Return tokens a second and days on so many of `device`, if each does `mfu` of its peak by 6N."""
        rate = self.ranks * device.peak_flops_per_second * mfu / self.flops_per_token
        return {
            "device": device.name,
            "mfu_6n_assumed": mfu,
            "tokens_per_second": rate,
            "days": self.tokens / rate / _SECONDS_PER_DAY,
        }

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return {
            **{name: getattr(self, name) for name in _IN_JSON},
            "bytes_per_rank": self.memory.by_part(),
            "bytes_sent_per_step": self.bytes_sent_per_step(),
            "disk_bytes": self.disk_bytes,
        }


def least_ranks(layout: ParallelConfig) -> int:
    """Return the smallest number of ranks that a layout can have."""
    return layout.dp_replicate * max(1, layout.dp_shard) * layout.tp


def estimate(config: RunConfig, *, world_size: int | None = None, device: DeviceKind = "cpu") -> Estimate:
    """Compute the cost of `config` on `world_size` ranks, by default as few as it can have; touches no data.

    Raises:
        DistributedError: the mesh does not fit the number of ranks.
    """
    layout = config.parallel.settled(world_size or least_ranks(config.parallel))
    parameters = num_parameters(config.model)
    sequences = -(-config.batch_sequences // (layout.dp_replicate * layout.dp_shard))
    micro = min(config.train.micro_batch_sequences, sequences)
    step = RankStep(
        seq_len=config.data.seq_len,
        micro_batch_sequences=micro,
        micro_batches=-(-sequences // micro),
        compute_bytes=2 if config.train.compute_dtype == "bfloat16" else _FLOAT32_BYTES,
        recompute=config.train.recompute,
        loss_chunk_tokens=config.train.loss_chunk_tokens,
    )
    return Estimate(
        parameters=parameters,
        layout=layout,
        micro_batch_sequences=step.micro_batch_sequences,
        micro_batches=step.micro_batches,
        total_steps=config.total_steps,
        tokens=config.train.tokens,
        tokens_per_step=config.train.batch_tokens,
        batch_sequences=config.batch_sequences,
        flops_per_token=flops_per_token(config.model, config.data.seq_len, attention=False),
        flops_per_token_with_attention=flops_per_token(config.model, config.data.seq_len, attention=True),
        memory=memory_per_rank(config.model, layout, step, device=device),
        collectives=communication(config.model, layout, step),
        disk_bytes=_disk_bytes(config, parameters),
    )


def _disk_bytes(config: RunConfig, parameters: int) -> int:
    """Checkpoints that exist at once (one more while a new one is written), and the model folder."""
    every = config.checkpoint.keep_every_steps
    for_good = config.total_steps // every if every else 0
    checkpoints = (config.checkpoint.keep + 1 + for_good) * _SAVED_COPIES
    return (checkpoints + 1) * _FLOAT32_BYTES * parameters


def _written_bytes(run_folder: Path) -> int:
    """What a run that is gone on with has on the disk already."""
    return sum(files.folder_bytes(run_folder / part) for part in ("checkpoints", "model"))


def require_resources(
    config: RunConfig, *, world_size: int, device: DeviceKind, local_ranks: int = 1, gpu: int | None = None
) -> Estimate:
    """Check disk and memory for the run.

    Args:
        world_size: all ranks.
        device: what they work on.
        local_ranks: how many of them share this machine's memory.
        gpu: index of this rank's CUDA device.

    Raises:
        ResourceError: the run folder's disk or the memory is too small; names the setting to change.
    """
    cost = estimate(config, world_size=world_size, device=device)
    missing_bytes = cost.disk_bytes - _written_bytes(config.run.folder)
    files.require_free_bytes(config.run.folder, missing_bytes, purpose="the run with its checkpoints")
    if device == "cuda":
        require_memory(config, cost, free_gpu_bytes(gpu), device=device, where="this GPU")
    else:
        shared = f" for each of the {local_ranks} ranks on it" if local_ranks > 1 else ""
        free_bytes = free_memory_bytes() // local_ranks
        require_memory(config, cost, free_bytes, device=device, where=f"this machine{shared}")
    return cost


def require_memory(
    config: RunConfig, cost: Estimate, free_bytes: int, *, device: DeviceKind, where: str
) -> None:
    """Check that a rank fits.

    Raises:
        ResourceError: with the first change of settings that fits by the same estimate.
    """
    if cost.memory.total <= free_bytes:
        return
    raise ResourceError(
        f"training needs about {files.format_bytes(cost.memory.total)} a rank, "
        f"{files.format_bytes(free_bytes)} are available on {where}",
        hint=_how_to_fit(config, cost, free_bytes, device=device),
    )


def _how_to_fit(config: RunConfig, cost: Estimate, free_bytes: int, *, device: DeviceKind) -> str:
    """Try changes from the one that costs least speed to the one that takes more machines."""
    for settings, ranks in _changes(config, cost):
        changed = _with(config, settings)
        if changed is None:
            continue
        needed = estimate(changed, world_size=ranks, device=device).memory.total
        if needed <= free_bytes:
            said = [f"{name}={value}" for name, value in settings.items()]
            said += [f"{ranks} ranks with this much each"] if ranks != cost.ranks else []
            return f"use {', '.join(said)} (about {files.format_bytes(needed)} a rank)"
    return "no setting makes it fit: use a smaller model or a device with more memory"


def _changes(config: RunConfig, cost: Estimate) -> Iterable[tuple[dict[str, Any], int]]:
    """Settings to try, and the number of ranks to try them on, in this order."""
    smaller = [
        size for size in (2**power for power in range(10, -1, -1)) if size < cost.micro_batch_sequences
    ]
    for policy in _RECOMPUTE[_RECOMPUTE.index(config.train.recompute) :]:
        kept = {} if policy == config.train.recompute else {"train.recompute": policy}
        if kept:
            yield kept, cost.ranks
        for size in smaller:
            yield {**kept, "train.micro_batch_sequences": size}, cost.ranks
    least = {"train.recompute": "full", "train.micro_batch_sequences": 1}
    for tp in (2, 4, 8):
        if tp > cost.layout.tp and cost.ranks % (tp * cost.layout.dp_replicate) == 0:
            yield {**least, "parallel.tp": tp}, cost.ranks
    if config.parallel.dp_shard == -1:
        for power in range(1, 12):
            yield least, cost.ranks * 2**power


def _with(config: RunConfig, settings: dict[str, Any]) -> RunConfig | None:
    """Return the config with some settings replaced, None if they contradict others."""
    values = config.model_dump()
    for name, value in settings.items():
        section, key = name.split(".")
        values[section][key] = value
    try:
        return RunConfig.model_validate(values)
    except ValueError:
        return None


def with_real_shards(cost: Estimate, *, weights: int, gradients: int, optimizer_states: int) -> Estimate:
    """Return the estimate with the bytes of shards that were really built."""
    memory = replace(cost.memory, weights=weights, gradients=gradients, optimizer_states=optimizer_states)
    return replace(cost, memory=memory)


def epochs_by_source(config: RunConfig) -> dict[str, float] | None:
    """Return how often the run goes through each source (LLaMA, Table 1); None while shards are missing.

    Raises:
        DataError: shards that are there cannot be used.
    """
    if not all(source.path.exists() for source in config.data.sources):
        return None
    from criadero.shards.batches import Batches

    batches = Batches(config.data, vocab_size=config.model.vocab_size)
    return batches.epochs(config.total_steps * config.batch_sequences)
