"""What a run will cost, before it starts: parameters, memory a rank, disk, FLOPs.

Entry points: `estimate` for the numbers (`criadero train CONFIG --dry-run` prints them) and
`require_resources`, which refuses a run that cannot fit. Activations are an upper estimate without
recomputation; weights, gradients and optimizer states are exact.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from criadero import files
from criadero.errors import ResourceError
from criadero.model.config import ModelConfig
from criadero.model.flops import flops_per_token
from criadero.model.presets import num_parameters
from criadero.train.config import RunConfig

_FLOAT32_BYTES = 4
_STATE_COPIES = 4  # weights, gradients and AdamW's two moments, all float32
_SAVED_COPIES = 3  # weights and both moments


@dataclass(frozen=True)
class Estimate:
    """Cost of a run; bytes are per rank unless named otherwise."""

    parameters: int
    ranks: int
    total_steps: int
    tokens_per_step: int
    batch_sequences: int
    flops_per_token: int
    flops_per_token_with_attention: int
    total_flops: int
    state_bytes: int
    activation_bytes: int
    logits_bytes: int
    memory_bytes: int
    disk_bytes: int


def estimate(config: RunConfig, *, world_size: int = 1) -> Estimate:
    """Compute the cost of `config` on `world_size` ranks; touches no data."""
    parameters = num_parameters(config.model)
    compute_bytes = 2 if config.train.compute_dtype == "bfloat16" else _FLOAT32_BYTES
    micro_tokens = config.train.micro_batch_sequences * config.data.seq_len
    state_bytes = _STATE_COPIES * _FLOAT32_BYTES * parameters // world_size + compute_bytes * parameters
    activation_bytes = micro_tokens * _activations_per_token(config.model) * compute_bytes
    chunk_tokens = min(config.train.loss_chunk_tokens, micro_tokens)
    logits_bytes = chunk_tokens * config.model.vocab_size * (_FLOAT32_BYTES + 2 * compute_bytes)
    return Estimate(
        parameters=parameters,
        ranks=world_size,
        total_steps=config.total_steps,
        tokens_per_step=config.train.batch_tokens,
        batch_sequences=config.batch_sequences,
        flops_per_token=flops_per_token(config.model, config.data.seq_len, attention=False),
        flops_per_token_with_attention=flops_per_token(config.model, config.data.seq_len, attention=True),
        total_flops=flops_per_token(config.model, config.data.seq_len, attention=False) * config.train.tokens,
        state_bytes=state_bytes,
        activation_bytes=activation_bytes,
        logits_bytes=logits_bytes,
        memory_bytes=state_bytes + activation_bytes + logits_bytes,
        disk_bytes=_disk_bytes(config, parameters),
    )


def _activations_per_token(model: ModelConfig) -> int:
    """Values kept for the backward pass, per token: inputs of every matmul, norm, rotation and gate."""
    heads, kv_heads = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    attention = 4 * model.dim + 4 * heads + 4 * kv_heads
    feed_forward = 3 * model.dim + 4 * model.hidden_dim
    return model.num_layers * (attention + feed_forward) + 3 * model.dim


def _disk_bytes(config: RunConfig, parameters: int) -> int:
    """Checkpoints that exist at once (one more while a new one is written), and the model folder."""
    every = config.checkpoint.keep_every_steps
    for_good = config.total_steps // every if every else 0
    checkpoints = (config.checkpoint.keep + 1 + for_good) * _SAVED_COPIES
    return (checkpoints + 1) * _FLOAT32_BYTES * parameters


def _written_bytes(run_folder: Path) -> int:
    """What a run that is gone on with has on the disk already."""
    return sum(files.folder_bytes(run_folder / part) for part in ("checkpoints", "model"))


def require_resources(config: RunConfig, *, world_size: int, device: torch.device) -> Estimate:
    """Check disk and memory for the run.

    Raises:
        ResourceError: the run folder's disk or the device's memory is too small; names the setting to change.
    """
    cost = estimate(config, world_size=world_size)
    missing_bytes = cost.disk_bytes - _written_bytes(config.run.folder)
    files.require_free_bytes(config.run.folder, missing_bytes, purpose="the run with its checkpoints")
    available_bytes = available_memory_bytes(device)
    if cost.memory_bytes > available_bytes:
        raise ResourceError(
            f"training needs about {files.format_bytes(cost.memory_bytes)} on {device}, "
            f"{files.format_bytes(available_bytes)} are available",
            hint=_how_to_fit(config, cost, available_bytes),
        )
    return cost


def _how_to_fit(config: RunConfig, cost: Estimate, available_bytes: int) -> str:
    room_bytes = available_bytes - cost.state_bytes - cost.logits_bytes
    fitting = config.train.micro_batch_sequences * room_bytes // cost.activation_bytes
    if fitting >= 1:
        return f"set train.micro_batch_sequences={fitting} or less"
    if available_bytes > cost.state_bytes:
        return "not even one sequence fits: use a smaller data.seq_len, or more ranks"
    return "weights and optimizer states alone do not fit: use more ranks or a smaller model"


def available_memory_bytes(device: torch.device) -> int:
    """Return the free memory of a CUDA device, or what the system can still give on CPU."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
