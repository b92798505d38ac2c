"""The same training step on 1, 2 and 4 ranks of this machine, in every layout: speed, losses, bytes sent.

Ranks are processes with one thread each that talk by gloo over the loopback device. Every layout gets the
same global batch and first weights, so all must show the same losses; what differs, rounding of sums taken in
another order, is bounded by LOSS_TOLERANCE. Collectives are counted in one step as they happen, and compared
with the arithmetic of `criadero.planner.communication`; beside it stands what the operating system says went
out through a rank's sockets. Rounds alternate between layouts; figures are medians.

    python benchmarks/scaling.py [--only "2 shards" ...] [--rounds 3] [--steps 3] [--save]

Ends with code 1 if losses or counts disagree. The last line is one JSON object. More ranks than cores only
show that it works: speed-up over one rank counts up to the number of cores. gloo sums and scatters by an
all-reduce, so its sockets see twice the bytes that a ring needs for reduce-scatters.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from criadero.config import validate
from criadero.planner.communication import Collective
from criadero.train.config import RunConfig
from criadero.train.estimate import estimate
from process import circumstances, print_result

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "scaling.json"
ONE = "1 rank"
LAYOUTS = {
    ONE: {"dp_shard": 1},
    "2 shards": {"dp_shard": 2},
    "2 replicas": {"dp_shard": 1, "dp_replicate": 2},
    "2 tensor parallel": {"dp_shard": 1, "tp": 2},
    "4 shards": {"dp_shard": 4},
    "2 replicas x 2 shards": {"dp_shard": 2, "dp_replicate": 2},
    "2 shards x 2 tensor parallel": {"dp_shard": 2, "tp": 2},
    "4 tensor parallel": {"dp_shard": 1, "tp": 4},
}
MODELS = {
    "small": {"vocab_size": 4096, "dim": 256, "num_layers": 6, "num_heads": 4, "max_seq_len": 256},
    "toy": {"vocab_size": 64, "dim": 16, "num_layers": 2, "num_heads": 4, "max_seq_len": 32},
}
BATCH_SEQUENCES = 16
# Nats. Float32 sums in another order, through a few steps of AdamW: seen are differences below 2e-6.
LOSS_TOLERANCE = 2e-5


def run_config(model: str, layout: str) -> dict[str, Any]:
    """Return the values of a run in this layout; its data are random, so the paths are never opened."""
    sizes, parallel = MODELS[model], LAYOUTS[layout]
    data_parallel = parallel["dp_shard"] * parallel.get("dp_replicate", 1)
    return {
        "run": {"folder": "unused"},
        "model": sizes,
        "data": {
            "seq_len": sizes["max_seq_len"],
            "sources": [{"name": "random", "path": "unused", "weight": 1.0}],
        },
        "train": {
            "tokens": 10**9,
            "batch_tokens": BATCH_SEQUENCES * sizes["max_seq_len"],
            "micro_batch_sequences": BATCH_SEQUENCES // data_parallel,
            "device": "cpu",
            "compute_dtype": "float32",
        },
        "parallel": parallel,
    }


def num_ranks(layout: str) -> int:
    """Return how many processes a layout needs."""
    parallel = LAYOUTS[layout]
    return parallel["dp_shard"] * parallel.get("dp_replicate", 1) * parallel.get("tp", 1)


def measure(model: str, layout: str, *, steps: int) -> list[dict[str, Any]]:
    """Start the ranks, wait, and return what each found."""
    plan = json.dumps({"config": run_config(model, layout), "steps": steps})
    world_size = num_ranks(layout)
    shared = {
        "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "OMP_NUM_THREADS": "1",
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, HERE / "scaling_rank.py", plan],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(world_size)
    ]
    try:
        said = [rank.communicate()[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    if any(rank.returncode for rank in ranks):
        sys.exit(f"{layout}: ranks ended with codes {[rank.returncode for rank in ranks]}")
    return [json.loads(lines.splitlines()[-1]) for lines in said]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def formula(model: str, layout: str) -> tuple[Collective, ...]:
    """Return what a rank should exchange in one step."""
    config = validate(RunConfig, run_config(model, layout), where="the benchmark's run")
    return estimate(config, world_size=num_ranks(layout)).collectives


def figures(model: str, layout: str, found: Sequence[list[dict[str, Any]]]) -> dict[str, Any]:
    """Return speed and bytes of one layout over all rounds; the slowest rank makes a step's time."""
    tokens = BATCH_SEQUENCES * MODELS[model]["max_seq_len"]
    rates = [
        tokens / statistics.median(max(times) for times in zip(*(r["seconds"] for r in ranks), strict=True))
        for ranks in found
    ]
    first, expected = found[0], formula(model, layout)
    return {
        "ranks": num_ranks(layout),
        **LAYOUTS[layout],
        "tokens_per_second": round(statistics.median(rates), 1),
        "spread": [round(min(rates), 1), round(max(rates), 1)],
        "runs": [round(rate, 1) for rate in rates],
        "losses": first[0]["losses"],
        "counted": by_kind(first[0]["counted"]),
        "formula": by_kind([vars(part) for part in expected]),
        "bytes_agree": all(
            by_kind(rank["counted"]) == by_kind([vars(part) for part in expected]) for rank in first
        ),
        "ring_bytes": round(sum(part.sent_bytes for part in expected)),
        "socket_bytes": [rank["socket_bytes"] for rank in first],
    }


def by_kind(parts: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Add up calls and bytes of whole tensors by kind of collective."""
    calls, tensor_bytes = Counter[str](), Counter[str]()
    for part in parts:
        calls[part["kind"]] += part["calls"]
        tensor_bytes[part["kind"]] += part["tensor_bytes"]
    return {kind: {"calls": calls[kind], "tensor_bytes": tensor_bytes[kind]} for kind in sorted(calls)}


def loss_difference(layouts: dict[str, dict[str, Any]]) -> float:
    """Return the greatest difference between any layout's loss and the first layout's at the same step."""
    expected = next(iter(layouts.values()))["losses"]
    return max(
        abs(one - other)
        for found in layouts.values()
        for one, other in zip(found["losses"], expected, strict=True)
    )


def report(layouts: dict[str, dict[str, Any]], difference: float) -> None:
    """Print one line for each layout."""
    base = next(iter(layouts.values()))["tokens_per_second"]
    for layout, found in layouts.items():
        rate, ring, sent = (found[key] for key in ("tokens_per_second", "ring_bytes", "socket_bytes"))
        print(
            f"{layout}: {rate:,.0f} tokens/s, {rate / base:.2f}x; a rank sends {ring / 1e6:.2f} MB a step "
            f"in a ring, {max(sent) / 1e6:.2f} MB through its sockets; "
            f"counts {'are' if found['bytes_agree'] else 'are NOT'} as computed"
        )
    print(f"losses differ by at most {difference:.1e} (allowed {LOSS_TOLERANCE:.0e})")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the chosen layouts in rounds, compare, print the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, default="small")
    parser.add_argument("--only", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="timed steps a round")
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.relative_to(HERE.parent)}")
    options = parser.parse_args(arguments)
    load = os.getloadavg()[0]  # near 0 on a machine that does nothing else
    found: dict[str, list[list[dict[str, Any]]]] = {layout: [] for layout in options.only}
    for number in range(options.rounds):
        for layout, rounds in found.items():
            rounds.append(measure(options.model, layout, steps=options.steps))
        print(f"round {number + 1} of {options.rounds} is done", flush=True)
    layouts = {layout: figures(options.model, layout, rounds) for layout, rounds in found.items()}
    difference = loss_difference(layouts)
    report(layouts, difference)
    first = next(iter(layouts))
    rates = {layout: one["tokens_per_second"] for layout, one in layouts.items()}
    result = {
        "ours": rates,
        "peers": {first: rates[first]},
        "ratio": {layout: round(rate / rates[first], 3) for layout, rate in rates.items()},
        "runs": {layout: one["runs"] for layout, one in layouts.items()},
        "loss_difference": difference,
        "loss_tolerance": LOSS_TOLERANCE,
        "model": {"name": options.model, **MODELS[options.model], "batch_sequences": BATCH_SEQUENCES},
        "layouts": layouts,
        "cores": os.cpu_count(),
        "load_before": round(load, 1),
        **circumstances(1),
    }
    print_result(result, RESULTS, save=options.save)
    if difference > LOSS_TOLERANCE or not all(one["bytes_agree"] for one in layouts.values()):
        sys.exit("the layouts disagree: see losses and counted against formula above")


if __name__ == "__main__":
    main()
