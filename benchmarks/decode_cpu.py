"""Tokens a second of generating on the CPU: criadero, llama.cpp and Hugging Face, taking turns.

One GGUF file for all: criadero and llama.cpp use its quantised weights as they are, Hugging Face gets them
dequantised, in float32 and in bfloat16. The same threads, greedy, each system in its own process and the
peers in their own pinned environment (`make peers`); only one works at any time. Four figures: one sequence
decoded, a prompt of 512 tokens until its first token, and 8 and 32 sequences decoded together. Medians over
rounds; the last line is one JSON object, whose `ours`, `peers` and `ratio` (over llama.cpp if it is there)
are those of one sequence.

    python benchmarks/decode_cpu.py MODEL.gguf [--rounds 5] [--steps 64] [--only NAME ...] [--save]
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from process import Process, circumstances, print_result

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "decode_cpu.json"
OURS = "criadero"
PEERS = ("llamacpp", "huggingface", "huggingface_bfloat16")
# Sequences, tokens of each prompt, and whether the prompt or the steps after it are counted.
TASKS = {"decode": (1, 32), "prefill_512": (1, 512), "decode_8": (8, 32), "decode_32": (32, 32)}
PREFILL = "prefill_512"


def start(name: str, file: Path, folder: Path, *, threads: int, steps: int) -> Process:
    """Start a system and let it load the model."""
    home = name.partition("_")[0]
    python = Path(sys.executable) if name == OURS else HERE / "peers" / home / ".venv" / "bin" / "python"
    if not python.exists():
        sys.exit(f"{python} is missing: run `make peers` first")
    runner = HERE / "peers" / home / "decode_runner.py"
    process = Process([python, "-P", HERE / "peers" / "serve_decode.py", runner], threads=threads)
    setup = {
        "file": str(file),
        "folder": str(folder),
        "dtype": name.partition("_")[2] or "float32",
        "threads": threads,
        "context": 512 + steps + 1,
        "sequences": max(sequences for sequences, _ in TASKS.values()),
    }
    print(f"{name} {process.ask(setup)['version']} is ready", flush=True)
    return process


def measure(running: dict[str, Process], *, rounds: int, steps: int) -> dict[str, dict[str, list[float]]]:
    """Return tokens a second of each task and system, one for each round."""
    rates: dict[str, dict[str, list[float]]] = {task: {name: [] for name in running} for task in TASKS}
    for number in range(-1, rounds):  # the first one warms up
        for task, (sequences, length) in TASKS.items():
            choose = random.Random(f"{number} {task}")
            prompts = [[choose.randrange(200) for _ in range(length)] for _ in range(sequences)]
            for name, process in running.items():
                answer = process.ask({"prompts": prompts, "steps": 1 if task == PREFILL else steps})
                rate = length / answer["prompt_seconds"]
                if task != PREFILL:
                    rate = sequences * steps / answer["step_seconds"]
                if number >= 0:
                    rates[task][name].append(rate)
            latest = (f"{name} {figures[-1]:,.0f}" for name, figures in rates[task].items() if figures)
            print(f"round {number + 1} of {rounds}, {task}, tokens/s: {', '.join(latest)}", flush=True)
    return rates


def compared(rates: dict[str, list[float]]) -> dict[str, Any]:
    """Return medians, and ours over each peer's with the spread over the rounds."""
    medians = {name: statistics.median(figures) for name, figures in rates.items()}
    peers = [name for name in rates if name != OURS]
    ratios = {
        peer: [ours / theirs for ours, theirs in zip(rates[OURS], rates[peer], strict=True)] for peer in peers
    }
    return {
        "ours": round(medians[OURS], 1),
        "peers": {peer: round(medians[peer], 1) for peer in peers},
        "ratios": {peer: round(medians[OURS] / medians[peer], 3) for peer in peers},
        "ratio_spreads": {peer: [round(min(r), 3), round(max(r), 3)] for peer, r in ratios.items()},
        "runs": {name: [round(rate, 1) for rate in figures] for name, figures in rates.items()},
    }


def export(file: Path, folder: Path) -> None:
    """Write the dequantised weights where Hugging Face reads them."""
    command = [sys.executable, "-m", "criadero", "export", file, "hf", folder]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def run(file: Path, systems: Sequence[str], *, threads: int, rounds: int, steps: int) -> dict[str, Any]:
    """Measure everything and return the result."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "model"
        if any(name.startswith("huggingface") for name in systems):
            export(file, folder)
        running = {}
        for name in systems:
            running[name] = start(name, file, folder, threads=threads, steps=steps)
            stack.callback(running[name].stop)
        rates = measure(running, rounds=rounds, steps=steps)
        peaks = {name: process.finish()["peak_rss_bytes"] for name, process in running.items()}
    tasks = {task: compared(figures) for task, figures in rates.items()}
    first = tasks["decode"]
    return {
        "ours": first["ours"],
        "peers": first["peers"],
        "ratio": next(iter(first["ratios"].values()), None),
        "runs": first["runs"],
        "tasks": tasks,
        "peak_rss_bytes": peaks,
        "file": file.name,
        **circumstances(threads),
    }


def main() -> None:
    """Measure the chosen systems and print the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, metavar="MODEL.gguf")
    parser.add_argument("--only", nargs="+", choices=PEERS, default=list(PEERS), help="peers to compare with")
    parser.add_argument("--alone", action="store_true", help="no peer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=64, help="tokens of each sequence")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.relative_to(HERE.parent)}")
    options = parser.parse_args()
    systems = [OURS] if options.alone else [OURS, *options.only]
    result = run(
        options.file.resolve(), systems, threads=options.threads, rounds=options.rounds, steps=options.steps
    )
    for task, figures in result["tasks"].items():
        for peer, ratio in figures["ratios"].items():
            low, high = figures["ratio_spreads"][peer]
            print(f"{task}: criadero is {ratio}x {peer} ({low} to {high} over the rounds)")
    print_result(result, RESULTS, save=options.save)


if __name__ == "__main__":
    main()
