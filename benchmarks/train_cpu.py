"""Tokens a second of a whole training step on the CPU: criadero, Hugging Face and litgpt, taking turns.

Forward, backward, clip and fused AdamW at the same shapes and number of parameters, bfloat16 compute with
float32 weights and states, eager, the same threads. Each system lives in its own process and, the peers, in
their own pinned environment (`make peers`); only one works at any time. Medians over rounds; the last line is
one JSON object whose `ours`, `peers` and `ratio` are those of the first shape measured.

    python benchmarks/train_cpu.py [--shape large small] [--rounds 10] [--steps 3] [--save]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from process import Process, circumstances

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "train_cpu.json"
OURS = "criadero"
PEERS = ("huggingface", "litgpt")
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
WARM_UP_STEPS = 2


class System(Process):
    """One measured system; see peers/serve.py for what is said."""

    def __init__(self, name: str, shape: dict[str, Any], *, threads: int) -> None:
        folder = HERE / "peers" / name
        python = Path(sys.executable) if name == OURS else folder / ".venv" / "bin" / "python"
        if not python.exists():
            sys.exit(f"{python} is missing: run `make peers` first")
        super().__init__([python, "-P", HERE / "peers" / "serve.py", folder / "runner.py"], threads=threads)
        self.built = self.ask({**shape, **OPTIMIZER, "threads": threads})


def measure(name: str, *, rounds: int, steps: int, threads: int) -> dict[str, Any]:
    """Run all systems at one shape, rounds alternated, and return its figures."""
    shape = SHAPES[name]
    step_tokens = shape["batch"] * shape["seq_len"]
    runs: dict[str, list[float]] = {system: [] for system in (OURS, *PEERS)}
    with ExitStack() as stack:
        systems = {}
        for system in runs:
            systems[system] = System(system, shape, threads=threads)
            stack.callback(systems[system].stop)
            systems[system].ask({"steps": WARM_UP_STEPS})
        parameters = {system: process.built["parameters"] for system, process in systems.items()}
        if len(set(parameters.values())) != 1:
            sys.exit(f"the systems differ in size: {parameters}")
        losses = {}
        for number in range(rounds):
            for system, process in systems.items():
                answer = process.ask({"steps": steps})
                runs[system].append(step_tokens / statistics.median(answer["seconds"]))
                losses[system] = answer["loss"]
            rates = ", ".join(f"{system} {rates[-1]:,.0f}" for system, rates in runs.items())
            print(f"{name}, round {number + 1} of {rounds}, tokens/s: {rates}", flush=True)
        torch_versions = {system: process.built["torch"] for system, process in systems.items()}
        peaks = {system: process.finish()["peak_rss_bytes"] for system, process in systems.items()}
    return {
        **compared(runs),
        "parameters": parameters[OURS],
        "last_loss": {system: round(loss, 4) for system, loss in losses.items()},
        "peak_rss_bytes": peaks,
        "torch": torch_versions,
        "runs": {system: [round(rate, 1) for rate in rates] for system, rates in runs.items()},
    }


def compared(runs: dict[str, list[float]]) -> dict[str, Any]:
    """Return medians, the ratio to the best peer, and its spread over the rounds."""
    medians = {system: statistics.median(rates) for system, rates in runs.items()}
    best = max(PEERS, key=lambda peer: medians[peer])
    ratios = [ours / theirs for ours, theirs in zip(runs[OURS], runs[best], strict=True)]
    return {
        "ours": round(medians[OURS], 1),
        "peers": {peer: round(medians[peer], 1) for peer in PEERS},
        "best_peer": best,
        "ratio": round(medians[OURS] / medians[best], 3),
        "ratio_spread": [round(min(ratios), 3), round(max(ratios), 3)],
    }


def main() -> None:
    """Measure the chosen shapes and print the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=3, help="steps a round; its figure is their median")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.relative_to(HERE.parent)}")
    options = parser.parse_args()
    shapes = {
        name: measure(name, rounds=options.rounds, steps=options.steps, threads=options.threads)
        for name in options.shape
    }
    for name, figures in shapes.items():
        low, high = figures["ratio_spread"]
        print(f"{name}: {figures['ratio']}x {figures['best_peer']} ({low} to {high} over the rounds)")
    first = shapes[options.shape[0]]
    result = {
        **{key: first[key] for key in ("ours", "peers", "ratio", "ratio_spread", "runs")},
        "tokens_per_second": {OURS: first["ours"], **first["peers"]},
        "shape": options.shape[0],
        "shapes": shapes,
        **circumstances(options.threads),
    }
    if options.save:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
