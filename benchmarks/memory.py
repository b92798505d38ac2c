"""Memory of real training steps on the CPU beside the estimate of `criadero train --dry-run`.

Each case runs in processes of its own, one a rank. A tiny model trains first, so that everything is imported
and set up; then the peak of the resident set is reset, three steps run, and what the peak grew by is compared
with the estimate for a rank. The last line is one JSON object; `worst` is the ratio furthest from 1.

    python benchmarks/memory.py [--case NAME ...] [--save]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from process import circumstances, print_result

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "memory.json"
STEPS = 3
SMALL = {"dim": 512, "hidden_dim": 1536, "num_layers": 8, "num_heads": 8, "vocab_size": 8192}  # 35.7M
MIDDLE = {"dim": 640, "hidden_dim": 1792, "num_layers": 12, "num_heads": 10, "vocab_size": 16000}  # 81.4M
LARGE = {"dim": 768, "hidden_dim": 2048, "num_layers": 10, "num_heads": 12, "vocab_size": 16000}  # 95.4M
TINY = {"dim": 32, "hidden_dim": 64, "num_layers": 2, "num_heads": 2, "vocab_size": 64}


def case(model: dict[str, int], *, batch: int = 8, seq_len: int = 512, **settings: Any) -> dict[str, Any]:
    """Return one case: a model, the sequences of a micro-batch, and settings of [train] and [parallel]."""
    return {
        "model": model,
        "batch": batch,
        "seq_len": seq_len,
        "ranks": 1,
        "tp": 1,
        "micro_batches": 1,
        **settings,
    }


CASES: dict[str, dict[str, Any]] = {
    f"36M-{policy}-{dtype}": case(SMALL, recompute=policy, compute_dtype=dtype)
    for policy in ("none", "paper", "full")
    for dtype in ("bfloat16", "float32")
}
CASES |= {
    "36M-batch-2": case(SMALL, batch=2),
    "36M-2-micro-batches": case(SMALL, micro_batches=2),
    "36M-2-ranks": case(SMALL, ranks=2),
    "36M-2-ranks-full": case(SMALL, ranks=2, recompute="full"),
    "36M-tp-2": case(SMALL, ranks=2, tp=2),
    "81M-seq-1024": case(MIDDLE, batch=4, seq_len=1024),
    "81M-paper": case(MIDDLE, batch=8, recompute="paper"),
    "95M-batch-2": case(LARGE, batch=2),
    "95M-full": case(LARGE, recompute="full"),
}


def run_config(values: dict[str, Any]) -> Any:
    """Return a run of this shape; its data are given by hand, so the paths are never opened."""
    from criadero.config import validate
    from criadero.train.config import RunConfig

    step_tokens = (
        values["batch"] * values["seq_len"] * values["micro_batches"] * values["ranks"] // values["tp"]
    )
    train = {"compute_dtype": "bfloat16", "recompute": "none"} | {
        key: values[key] for key in ("compute_dtype", "recompute") if key in values
    }
    return validate(
        RunConfig,
        {
            "run": {"folder": "unused"},
            "model": {**values["model"], "max_seq_len": values["seq_len"]},
            "data": {"seq_len": values["seq_len"], "sources": [{"name": "random", "path": "unused"}]},
            "train": {
                "tokens": 10**9, "batch_tokens": step_tokens, "micro_batch_sequences": values["batch"],
                "device": "cpu", **train,
            },
            "parallel": {"tp": values["tp"]},
        },
        where="the benchmark's run",
    )  # fmt: skip


def rank(values: dict[str, Any], number: int, address: str | None) -> int:
    """Train on one rank, in this process; return the bytes its peak grew by."""
    import torch

    from criadero.parallel.launch import Launch, distributed

    torch.set_num_threads(max(1, values["threads"] // values["ranks"]))
    launch = Launch(number, number, values["ranks"], address)
    with distributed(launch, torch.device("cpu"), timeout_seconds=600) as device:
        train(run_config({**values, "model": TINY, "batch": 2, "seq_len": 32}), device, steps=2)
        gc.collect()
        before = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
        train(run_config(values), device, steps=STEPS)
        return memory("VmHWM") - before


def train(config: Any, device: Any, *, steps: int) -> None:
    """Build everything as a run does and take some steps on random tokens."""
    import torch

    from criadero.parallel.mesh import build_mesh
    from criadero.shards.batch import Batch
    from criadero.train.build import build_model
    from criadero.train.optimizer import make_optimizer
    from criadero.train.state import TrainState
    from criadero.train.step import train_step

    mesh = build_mesh(config.parallel, device)
    model = build_model(config, mesh)
    optimizer = make_optimizer(model, config.optimizer)
    count, seq_len = config.train.micro_batch_sequences, config.data.seq_len
    for number in range(steps):
        generator = torch.Generator().manual_seed(number * 1000 + mesh.dp_rank)
        micro_batches = []
        for _ in range(config.batch_sequences // (count * mesh.dp_size)):
            tokens = torch.randint(config.model.vocab_size, (count, seq_len + 1), generator=generator)
            inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
            micro_batches.append(Batch(inputs, targets, tuple(range(count)), num_targets=targets.numel()))
        train_step(
            model, optimizer, micro_batches, mesh=mesh, config=config, state=TrainState(),
            learning_rate=1e-4, stop_requested=False,
        )  # fmt: skip


def memory(field: str) -> int:
    """Return a field of this process's status, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(field)


def measure(name: str, *, threads: int) -> dict[str, Any]:
    """Run a case and return its figures; with several ranks, those of the one that grew most."""
    from criadero.train.estimate import estimate

    values = {**CASES[name], "threads": threads}
    address = None
    if values["ranks"] > 1:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, str(Path(__file__).resolve()), "--rank-of", json.dumps([values, address])]
    openmp = {"OMP_NUM_THREADS": str(max(1, threads // values["ranks"])), "OMP_WAIT_POLICY": "passive"}
    ranks = [
        subprocess.Popen(
            [*command, "--rank", str(number)], stdout=subprocess.PIPE, text=True, env={**os.environ, **openmp}
        )
        for number in range(values["ranks"])
    ]
    answers = [process.communicate()[0] for process in ranks]
    if any(process.returncode for process in ranks):
        sys.exit(f"a rank of {name} failed")
    grown = [int(answer.splitlines()[-1]) for answer in answers]
    parts = estimate(run_config(values), world_size=values["ranks"]).memory.by_part()
    return {
        "measured_bytes": max(grown),
        "estimated_bytes": parts["total"],
        "ratio": round(parts["total"] / max(grown), 3),
        "parts": parts,
    }


def main() -> None:
    """Measure the chosen cases and print the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.relative_to(HERE.parent)}")
    parser.add_argument("--rank-of", help=argparse.SUPPRESS)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank_of is not None:
        values, address = json.loads(options.rank_of)
        print(rank(values, options.rank, address))
        return
    cases = {}
    for name in options.case:
        cases[name] = found = measure(name, threads=options.threads)
        print(
            f"{name:24} measured {found['measured_bytes'] / 1e6:7,.0f} MB, "
            f"estimated {found['estimated_bytes'] / 1e6:7,.0f} MB, ratio {found['ratio']:.3f}",
            flush=True,
        )
    import torch

    result = {
        "worst": max((found["ratio"] for found in cases.values()), key=lambda ratio: abs(ratio - 1)),
        "cases": cases,
        "torch": torch.__version__,
        **circumstances(options.threads),
    }
    print_result(result, RESULTS, save=options.save)


if __name__ == "__main__":
    main()
