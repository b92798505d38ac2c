"""criadero, measured the way its peers are: `train_step` on a model from `build_model`, that is FSDP2 on a
mesh of one rank with float32 weights and states and bfloat16 compute, as `criadero train` runs it. On a GPU
the first weights are drawn there: those of a run are computed on the CPU, which takes minutes for 7B."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from criadero.config import validate
from criadero.model.init import STANDARD_DEVIATION
from criadero.model.presets import num_parameters
from criadero.model.transformer import Transformer
from criadero.parallel.launch import Launch, distributed
from criadero.parallel.mesh import build_mesh
from criadero.shards.batch import Batch
from criadero.train import build
from criadero.train.config import RunConfig
from criadero.train.optimizer import make_optimizer
from criadero.train.state import TrainState
from criadero.train.step import train_step

MODEL_FIELDS = ("vocab_size", "dim", "num_layers", "num_heads", "hidden_dim")


@contextmanager
def training(shape: dict[str, Any]) -> Iterator[tuple[Callable[..., float], int]]:
    """Yield one training step and the number of parameters."""
    config = run_config(shape)
    device = torch.device(shape["device"])
    if device.type == "cuda":
        build.initialize = draw_on_device
    with distributed(Launch(), device, timeout_seconds=600) as own:
        yield make_step(config, own), num_parameters(config.model)


def run_config(shape: dict[str, Any]) -> RunConfig:
    """Return a run of this shape; its data are given by hand, so the paths are never opened."""
    adamw = shape["adamw"]
    values = {
        "run": {"folder": "unused"},
        "model": {name: shape[name] for name in MODEL_FIELDS} | {"max_seq_len": shape["seq_len"]},
        "data": {
            "seq_len": shape["seq_len"],
            "sources": [{"name": "random", "path": "unused", "weight": 1.0}],
        },
        "train": {
            "tokens": 10**9,
            "batch_tokens": shape["batch"] * shape["seq_len"],
            "micro_batch_sequences": shape["micro_batch"],
            "device": shape["device"],
            "compile": shape["compile"] or shape["compile_layers"],
            "recompute": shape["recompute"],
        },
        "optimizer": {
            "learning_rate": adamw["lr"],
            "beta1": adamw["betas"][0],
            "beta2": adamw["betas"][1],
            "eps": adamw["eps"],
            "weight_decay": adamw["weight_decay"],
            "clip_norm": shape["clip_norm"],
        },
    }
    return validate(RunConfig, values, where="the benchmark's run")


@torch.no_grad()
def draw_on_device(model: Transformer, seed: int) -> None:
    """Stand in for `initialize`: values alike in size, of torch's own generator."""
    torch.manual_seed(seed)
    for parameter in model.parameters():
        assert isinstance(parameter, DTensor)
        values = parameter.to_local()
        if parameter.ndim > 1:
            values.normal_(std=STANDARD_DEVIATION)
        else:
            values.fill_(1.0)


def make_step(config: RunConfig, device: torch.device) -> Callable[..., float]:
    """Return the step; mesh, model and optimizer are its own, so they die before the process group."""
    mesh = build_mesh(config.parallel, device)
    model = build.build_model(config, mesh)
    optimizer = make_optimizer(model, config.optimizer)
    state = TrainState()

    def step(tokens_BT: torch.Tensor, targets_BT: torch.Tensor) -> float:
        size = config.train.micro_batch_sequences
        pieces = zip(tokens_BT.split(size), targets_BT.split(size), strict=True)
        batches = [
            Batch(tokens, targets, tuple(range(len(tokens))), num_targets=targets.numel())
            for tokens, targets in pieces
        ]
        result = train_step(
            model, optimizer, batches, mesh=mesh, config=config, state=state,
            learning_rate=config.optimizer.learning_rate, stop_requested=False,
        )  # fmt: skip
        return result.loss

    return step
