"""Tokens a second of a whole training step on the CPU: criadero, Hugging Face and litgpt, taking turns.

Forward, backward, clip and fused AdamW at the same shapes and number of parameters, bfloat16 compute with
float32 weights and states, the same threads, each eager and with `torch.compile`. Each system lives in its
own process and, the peers, in their own pinned environment (`make peers`); only one works at any time. One
more process does the step's matrix products and nothing else (`peers/gemm/`): what the machine reaches at the
model's shapes. Medians over rounds; the last line is one JSON object whose `ours`, `peers` and `ratio` are
those of the first shape measured, our faster mode beside the fastest peer.

    python benchmarks/train_cpu.py [--shape large small] [--rounds 10] [--steps 2] [--only NAME ...] [--save]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from process import Process, circumstances, print_result

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "train_cpu.json"
COMPILED = "_compiled"
OURS = ("criadero", "criadero" + COMPILED)
PEERS = tuple(peer + mode for peer in ("huggingface", "litgpt") for mode in ("", COMPILED))
GEMM = "gemm"
SHAPES = {
    "large": {
        "dim": 512, "hidden_dim": 1536, "num_layers": 8, "num_heads": 8, "vocab_size": 8192,
        "seq_len": 512, "batch": 8,
    },
    "small": {
        "dim": 288, "hidden_dim": 768, "num_layers": 6, "num_heads": 6, "vocab_size": 4096,
        "seq_len": 256, "batch": 32,
    },
}  # fmt: skip
OPTIMIZER = {
    "adamw": {"lr": 3e-4, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1},
    "clip_norm": 1.0,
}
CPU_SETTINGS = {"device": "cpu", "compile_layers": False}
WARM_UP_STEPS = 2


class System(Process):
    """One measured system; see peers/serve.py for what is said."""

    def __init__(self, name: str, shape: dict[str, Any], *, threads: int) -> None:
        folder = HERE / "peers" / name.removesuffix(COMPILED)
        python = folder / ".venv" / "bin" / "python"
        if name in OURS or name == GEMM:
            python = Path(sys.executable)
        if not python.exists():
            sys.exit(f"{python} is missing: run `make peers` first")
        super().__init__([python, "-P", HERE / "peers" / "serve.py", folder / "runner.py"], threads=threads)
        compiled = name.endswith(COMPILED)
        # Compiled, keeping what the paper keeps takes no longer, and the peers' compiler chooses for them.
        recompute = "paper" if compiled and name in OURS else "none"
        settings = {
            **CPU_SETTINGS,
            "micro_batch": shape["batch"],
            "compile": compiled,
            "recompute": recompute,
        }
        self.built = self.ask({**shape, **OPTIMIZER, **settings, "threads": threads})


def measure(name: str, *, systems: Sequence[str], rounds: int, steps: int, threads: int) -> dict[str, Any]:
    """Run the systems at one shape, rounds alternated, and return its figures."""
    shape = SHAPES[name]
    with ExitStack() as stack:
        running = start(name, (*systems, GEMM), threads=threads, stack=stack)
        gemm_flops = running[GEMM].built["parameters"]
        sizes = {system: running[system].built["parameters"] for system in systems}
        if len(set(sizes.values())) != 1:
            sys.exit(f"the systems differ in size: {sizes}")
        seconds: dict[str, list[float]] = {system: [] for system in running}
        losses = {}
        for number in range(rounds):
            for system, process in running.items():
                answer = process.ask({"steps": steps})
                seconds[system].append(statistics.median(answer["seconds"]))
                losses[system] = round(answer["loss"], 4)
            latest = (f"{system} {step_tokens(shape) / seconds[system][-1]:,.0f}" for system in systems)
            print(f"{name}, round {number + 1} of {rounds}, tokens/s: {', '.join(latest)}", flush=True)
        versions = {system: running[system].built["torch"] for system in systems}
        peaks = {system: running[system].finish()["peak_rss_bytes"] for system in systems}
    rates = {system: [step_tokens(shape) / second for second in seconds[system]] for system in systems}
    return {
        **compared(rates),
        **gemm_shares(shape, rates, gemm_flops / statistics.median(seconds[GEMM])),
        "parameters": sizes[systems[0]],
        "last_loss": {system: losses[system] for system in systems},
        "peak_rss_bytes": peaks,
        "peak_rss_ratio": memory_ratios(peaks),
        "torch": versions,
        "runs": {system: [round(rate, 1) for rate in figures] for system, figures in rates.items()},
    }


def start(name: str, systems: Sequence[str], *, threads: int, stack: ExitStack) -> dict[str, System]:
    """Start the systems one after the other, each with its first steps, in which it also compiles."""
    running = {}
    for system in systems:
        began = time.perf_counter()
        running[system] = System(system, SHAPES[name], threads=threads)
        stack.callback(running[system].stop)
        running[system].ask({"steps": WARM_UP_STEPS})
        print(f"{name}, {system} is ready after {time.perf_counter() - began:.0f} s", flush=True)
    return running


def step_tokens(shape: dict[str, Any]) -> int:
    """Return the tokens of one step."""
    return int(shape["batch"] * shape["seq_len"])


def gemm_shares(
    shape: dict[str, Any], rates: dict[str, list[float]], gemm_flops_per_second: float
) -> dict[str, Any]:
    """Return the rate of the matrix products alone, and which share of it each system reaches.

    A step counts 6 operations per weight (embedding excluded, whose rows are looked up) and token, and
    6 * layers * dim * seq_len per token for attention, half of the full square since it is causal.
    """
    layer_weights = 4 * shape["dim"] ** 2 + 3 * shape["dim"] * shape["hidden_dim"]
    weights = shape["num_layers"] * layer_weights + shape["dim"] * shape["vocab_size"]
    token_flops = 6 * weights + 6 * shape["num_layers"] * shape["dim"] * shape["seq_len"]
    return {
        "gemm_flops_per_second": round(gemm_flops_per_second),
        "step_flops_per_token": token_flops,
        "gemm_share": {
            system: round(statistics.median(figures) * token_flops / gemm_flops_per_second, 3)
            for system, figures in rates.items()
        },
    }


def compared(runs: dict[str, list[float]]) -> dict[str, Any]:
    """Return medians, and the ratios with their spread over the rounds: best to best, and eager to eager."""
    medians = {system: round(statistics.median(rates), 1) for system, rates in runs.items()}
    figures: dict[str, Any] = {"tokens_per_second": medians}
    eager = [system for system in runs if not system.endswith(COMPILED)]
    for key, systems in (("ratio", list(runs)), ("ratio_eager", eager)):
        ours = max((s for s in systems if s in OURS), key=medians.__getitem__)
        peer = max((s for s in systems if s in PEERS), key=medians.__getitem__)
        ratios = [mine / theirs for mine, theirs in zip(runs[ours], runs[peer], strict=True)]
        figures |= {
            key: round(medians[ours] / medians[peer], 3),
            f"{key}_spread": [round(min(ratios), 3), round(max(ratios), 3)],
            f"{key}_of": [ours, peer],
        }
    ours, _ = figures["ratio_of"]
    return {**figures, "ours": medians[ours], "peers": {s: medians[s] for s in runs if s in PEERS}}


def memory_ratios(peaks: dict[str, int]) -> dict[str, float]:
    """Return our peak memory over Hugging Face's in the same mode."""
    pairs = {ours: ours.replace(OURS[0], "huggingface") for ours in OURS}
    return {
        ours: round(peaks[ours] / peaks[peer], 3)
        for ours, peer in pairs.items()
        if {ours, peer} <= peaks.keys()
    }


def main() -> None:
    """Measure the chosen shapes and print the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--only", nargs="+", choices=(*OURS, *PEERS), default=[*OURS, *PEERS])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=2, help="steps a round; its figure is their median")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.relative_to(HERE.parent)}")
    options = parser.parse_args()
    if OURS[0] not in options.only or not {"huggingface", "litgpt"} & set(options.only):
        parser.error(f"--only needs {OURS[0]} and an eager peer to compare with")
    shapes = {
        name: measure(
            name, systems=options.only, rounds=options.rounds, steps=options.steps, threads=options.threads
        )
        for name in options.shape
    }
    for name, figures in shapes.items():
        for key in ("ratio", "ratio_eager"):
            (ours, peer), (low, high) = figures[f"{key}_of"], figures[f"{key}_spread"]
            print(f"{name}: {ours} is {figures[key]}x {peer} ({low} to {high} over the rounds)")
    first = shapes[options.shape[0]]
    keys = ("ours", "peers", "ratio", "ratio_spread", "ratio_of", "runs", "tokens_per_second")
    result = {
        **{key: first[key] for key in keys},
        "shape": options.shape[0],
        "shapes": shapes,
        **circumstances(options.threads),
    }
    print_result(result, RESULTS, save=options.save)


if __name__ == "__main__":
    main()
