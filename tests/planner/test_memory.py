"""The estimate of memory beside the memory that real training steps take, and what its parts depend on."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from criadero.model.presets import num_parameters, preset
from criadero.parallel.config import ParallelConfig
from criadero.planner.memory import Memory, memory_per_rank
from criadero.planner.step import RankStep

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "memory.py"


def memory(
    *, ranks: dict[str, int] | None = None, device: Literal["cpu", "cuda"] = "cuda", **changes: Any
) -> Memory:
    step = RankStep(
        seq_len=2048, micro_batch_sequences=8, micro_batches=1, compute_bytes=2, recompute="paper",
        loss_chunk_tokens=2048,
    )  # fmt: skip
    layout = ParallelConfig(**{"dp_shard": 1, **(ranks or {})})
    return memory_per_rank(preset("65b"), layout, replace(step, **changes), device=device)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak cannot be reset here")
def test_the_estimate_is_within_a_tenth_of_what_36m_parameters_take():
    done = subprocess.run(
        [sys.executable, BENCHMARK, "--case", "36M-none-bfloat16"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])["cases"]["36M-none-bfloat16"]
    assert found["estimated_bytes"] == pytest.approx(found["measured_bytes"], rel=0.1)


def test_states_of_one_rank_are_16_bytes_a_parameter():
    assert memory().states == 16 * num_parameters(preset("65b"))


def test_activations_of_65b_by_hand_as_the_paper_keeps_them():
    # 6 D + 2 F values and H float32 a token and layer; embeddings and the last norm's output, cut by tp; the
    # last hidden states and their gradient, which are not.
    tokens = 8 * 2048
    layers = 80 * tokens * (2 * (6 * 8192 + 2 * 22016) + 4 * 64)
    ends = 2 * tokens * 8192 * 2
    assert memory(ranks={"tp": 8}).activations == (layers + ends) // 8 + ends


def test_tensor_parallelism_cuts_layers_and_logits_and_shards_cut_states():
    alone, shared = memory(), memory(ranks={"tp": 8})
    assert shared.logits == alone.logits // 8
    assert shared.activations < alone.activations / 7
    assert memory(ranks={"dp_shard": 64}).activations == alone.activations
    assert memory(ranks={"dp_shard": 64}).states < alone.states / 60
    assert memory(ranks={"dp_replicate": 64}).states == alone.states


def test_a_rank_alone_on_the_cpu_keeps_all_weights_cast_and_others_two_layers():
    alone = memory(device="cpu").gathered_weights
    assert alone == pytest.approx(2 * num_parameters(preset("65b")), rel=0.001)
    assert memory(device="cpu", ranks={"dp_shard": 2}).gathered_weights < alone / 20


def test_larger_chunks_of_the_loss_take_more_and_the_whole_batch_bounds_them():
    sizes = [memory(loss_chunk_tokens=tokens).logits for tokens in (512, 8192, 16384, 10**9)]
    assert sizes[0] < sizes[1] < sizes[2] == sizes[3]
