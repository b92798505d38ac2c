"""Communication of a step is what the arithmetic says, to the byte: all collectives of real steps counted."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from communication_counter import CommunicationCounter
from criadero.model.presets import num_parameters, preset
from criadero.parallel.config import ParallelConfig
from criadero.parallel.mesh import Mesh
from criadero.planner.communication import Collective, communication
from criadero.planner.step import RankStep
from criadero.shards.batch import Batch
from criadero.train.build import build_model
from criadero.train.config import RunConfig
from criadero.train.optimizer import make_optimizer
from criadero.train.state import TrainState
from criadero.train.step import train_step
from ranks import run_ranks

SEQ_LEN, SEQUENCES = 12, 2
# First dimensions that three ranks cannot share evenly: 38, 10, 8, 4, 14.
MODEL = {
    "vocab_size": 38, "dim": 10, "num_layers": 3, "num_heads": 4, "num_kv_heads": 2, "head_dim": 2,
    "hidden_dim": 14, "max_seq_len": SEQ_LEN,
}  # fmt: skip
# recompute, micro-batches, compute dtype, pieces of the sequence under tensor parallelism
KINDS_OF_RUN = [
    ("none", 1, "float32", 1),
    ("none", 3, "bfloat16", 2),
    ("paper", 1, "bfloat16", 1),
    ("paper", 3, "float32", 2),
    ("full", 3, "bfloat16", 1),
]
Totals = dict[tuple[str, str], tuple[int, int]]


def run_config(parallel: dict[str, int], *, recompute: str, compute_dtype: str) -> RunConfig:
    return RunConfig.model_validate(
        {
            "run": {"folder": "unused"},
            "model": MODEL,
            "data": {"sources": [{"name": "a", "path": "a"}], "seq_len": SEQ_LEN},
            "train": {
                "tokens": 10**6,
                "batch_tokens": SEQ_LEN,
                "recompute": recompute,
                "compute_dtype": compute_dtype,
                "loss_chunk_tokens": 7,
            },
            "parallel": parallel,
        }
    )


def random_batch() -> Batch:
    tokens = torch.randint(MODEL["vocab_size"], (SEQUENCES, SEQ_LEN + 1))
    return Batch(tokens[:, :-1], tokens[:, 1:], tuple(range(SEQUENCES)), num_targets=SEQUENCES * SEQ_LEN)


def counted(mesh: Mesh, config: RunConfig, *, micro_batches: int) -> Totals:
    """Count one step, not the first: FSDP2 sets itself up at the first."""
    model = build_model(config, mesh)
    optimizer = make_optimizer(model, config.optimizer)
    state = TrainState()
    counter = CommunicationCounter()
    for number in range(2):
        batches = [random_batch() for _ in range(micro_batches)]
        counter.collectives.clear()
        with counter:
            train_step(
                model, optimizer, batches, mesh=mesh, config=config, state=state, learning_rate=1e-3,
                stop_requested=bool(number),
            )  # fmt: skip
    return counter.totals()


def expected(mesh: Mesh, config: RunConfig, *, micro_batches: int) -> Totals:
    replicas, shards, tp = mesh.grid.shape
    layout = ParallelConfig(
        dp_replicate=replicas, dp_shard=shards, tp=tp, tp_chunks=config.parallel.tp_chunks
    )
    step = RankStep(
        seq_len=SEQ_LEN,
        micro_batch_sequences=SEQUENCES,
        micro_batches=micro_batches,
        compute_bytes=getattr(torch, config.train.compute_dtype).itemsize,
        recompute=config.train.recompute,
        loss_chunk_tokens=config.train.loss_chunk_tokens,
    )
    parts = communication(config.model, layout, step)
    calls, tensor_bytes = Counter[Any](), Counter[Any]()
    for part in parts:
        key = (part.kind, name_of(part, mesh))
        calls[key] += part.calls
        tensor_bytes[key] += part.tensor_bytes
    return {key: (calls[key], tensor_bytes[key]) for key in calls}


def name_of(part: Collective, mesh: Mesh) -> str:
    """The group as torch names it: after its dimensions, or, if it has all ranks, after none."""
    if part.ranks == torch.distributed.get_world_size():
        return "default_pg"
    assert part.ranks == mesh.grid[part.dimension].size()
    return part.dimension


def step_by_step(mesh: Mesh, parallel: dict[str, int]) -> list[tuple[Totals, Totals]]:
    both = []
    for recompute, micro_batches, compute_dtype, tp_chunks in KINDS_OF_RUN:
        layout = {**parallel, "tp_chunks": tp_chunks}
        config = run_config(layout, recompute=recompute, compute_dtype=compute_dtype)
        arguments = {"config": config, "micro_batches": micro_batches}
        both.append((counted(mesh, **arguments), expected(mesh, **arguments)))
    return both


@pytest.mark.xdist_group("ranks")
@pytest.mark.parametrize(
    ("world_size", "parallel"),
    [
        pytest.param(2, {}, id="2 shards"),
        pytest.param(3, {}, id="3 shards, uneven"),
        pytest.param(2, {"dp_replicate": 2}, id="2 replicas"),
        pytest.param(4, {"dp_replicate": 2}, id="2 replicas x 2 shards"),
        pytest.param(2, {"tp": 2}, id="tensor parallel 2"),
        pytest.param(4, {"tp": 2}, id="2 shards x tensor parallel 2"),
    ],
)
def test_counted_communication_equals_the_formula(world_size: int, parallel: dict[str, int]):
    for of_rank in run_ranks(step_by_step, world_size, parallel, **parallel):
        for kind_of_run, (found, formula) in zip(KINDS_OF_RUN, of_rank, strict=True):
            print(kind_of_run)
            assert found == formula


def sizes(parallel: ParallelConfig) -> tuple[Collective, ...]:
    step = RankStep(
        seq_len=2048, micro_batch_sequences=2, micro_batches=1, compute_bytes=2, recompute="paper",
        loss_chunk_tokens=2048,
    )  # fmt: skip
    return communication(preset("7b"), parallel, step)


def test_one_rank_says_nothing():
    assert sizes(ParallelConfig(dp_shard=1)) == ()


def test_a_rank_that_shares_weights_sends_eight_bytes_for_each_of_others_and_each_parameter():
    # Two gathers of two bytes and one sum of four; the embedding, the last norm and the output go once.
    model, ranks = preset("7b"), 8
    once = 2 * model.vocab_size * model.dim + model.dim
    everything = 8 * num_parameters(model) - 2 * once
    sent = sum(part.sent_bytes for part in sizes(ParallelConfig(dp_shard=ranks)))
    assert sent == pytest.approx(everything * (ranks - 1) / ranks, rel=1e-6)
