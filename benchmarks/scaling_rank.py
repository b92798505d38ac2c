"""One rank of a measurement of `scaling.py`: its steps, their losses and times, and what it said to others.

Started with torchrun's variables and a JSON object as its argument; prints one JSON object. The batch of a
step depends on the step alone, and each rank takes its rows, so every layout trains on the same tokens.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from criadero.config import validate
from criadero.parallel.launch import distributed, launch_from
from criadero.parallel.mesh import Mesh, build_mesh
from criadero.shards.batch import Batch
from criadero.train.build import build_model
from criadero.train.config import RunConfig
from criadero.train.optimizer import make_optimizer
from criadero.train.state import TrainState
from criadero.train.step import train_step

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from communication_counter import CommunicationCounter, socket_bytes_sent

TIMEOUT_SECONDS = 120


def main() -> None:
    """Join the others, measure, print."""
    plan = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    config = validate(RunConfig, plan["config"], where="the benchmark's run")
    with distributed(launch_from(os.environ), torch.device("cpu"), timeout_seconds=TIMEOUT_SECONDS) as device:
        mesh = build_mesh(config.parallel, device, timeout_seconds=TIMEOUT_SECONDS)
        found = measure(mesh, config, steps=plan["steps"])
        del mesh
    print(json.dumps(found))


def measure(mesh: Mesh, config: RunConfig, *, steps: int) -> dict[str, Any]:
    """Take one step to warm up, `steps` timed ones, and one that is listened to."""
    model = build_model(config, mesh)
    optimizer = make_optimizer(model, config.optimizer)
    state = TrainState()
    losses: list[float] = []

    def step() -> float:
        batches = batches_of(config, mesh, number=len(losses))
        began = time.perf_counter()
        result = train_step(
            model, optimizer, batches, mesh=mesh, config=config, state=state,
            learning_rate=config.optimizer.learning_rate, stop_requested=False,
        )  # fmt: skip
        losses.append(result.loss)
        return time.perf_counter() - began

    step()
    seconds = [step() for _ in range(steps)]
    before = socket_bytes_sent()
    with CommunicationCounter() as counter:
        step()
    return {
        "losses": losses,
        "seconds": seconds,
        "socket_bytes": socket_bytes_sent() - before,
        "counted": [
            {"kind": kind, "group": group, "calls": calls, "tensor_bytes": tensor_bytes}
            for (kind, group), (calls, tensor_bytes) in counter.totals().items()
        ],
    }


def batches_of(config: RunConfig, mesh: Mesh, *, number: int) -> list[Batch]:
    """Return this rank's micro-batches of a step: its rows of the same random tokens on all ranks."""
    size = (config.batch_sequences, config.data.seq_len + 1)
    generator = torch.Generator().manual_seed(number)
    tokens: Tensor = torch.randint(config.model.vocab_size, size, generator=generator)
    rows = tokens.chunk(mesh.dp_size)[mesh.dp_rank]
    return [
        Batch(piece[:, :-1], piece[:, 1:], tuple(range(len(piece))), num_targets=piece[:, 1:].numel())
        for piece in rows.split(config.train.micro_batch_sequences)
    ]


if __name__ == "__main__":
    main()
