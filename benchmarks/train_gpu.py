"""Tokens a second of a whole training step on one GPU: criadero, Hugging Face and litgpt in turn.

Forward, backward, clip and fused AdamW on sequences of 2048 tokens, bfloat16 compute with float32 weights and
states for all, each layer compiled. `1b` has the widths of TinyLlama, 18 layers and 16 full heads (1.06B
parameters), `7b` is the paper's (6.74B): its float32 states take 108 GB, so every measurement is a process
of its own, and rounds alternate by starting and ending these. First each system looks for its best
recomputation and micro-batch among a few (`--use` names them instead); what does not fit is recorded as such.
A peer runs in its environment (`make peers`) or in this one, if it is installed here; else it is listed as
not installed.

    python benchmarks/train_gpu.py --model 7b --systems criadero --rounds 0         # look only
    python benchmarks/train_gpu.py --model 7b --use criadero=paper:4 huggingface=full:4 --rounds 3 --save
    python benchmarks/train_gpu.py --device cpu --model toy --eager                 # does all this run?

The last line is one JSON object. Nothing is started that would probably not end within `--limit` seconds, and
looking takes half of them; what was left out is said. This measures one GPU: the overlap that
`parallel.tp_chunks` gives needs several.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from criadero.carbon.counters import CounterSource, nvml_source
from criadero.carbon.meter import this_machine
from criadero.model.config import ModelConfig
from criadero.model.flops import flops_per_token
from criadero.planner.devices import peak_flops_per_second
from process import Ended, Process, circumstances, print_result
from train_cpu import OPTIMIZER

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "train_gpu.json"
OURS = "criadero"
PEERS = {"huggingface": "transformers", "litgpt": "litgpt"}
MODELS = {
    "1b": {
        "dim": 2048, "hidden_dim": 5632, "num_layers": 18, "num_heads": 16, "vocab_size": 32000,
        "seq_len": 2048, "batch": 32,
    },
    "7b": {
        "dim": 4096, "hidden_dim": 11008, "num_layers": 32, "num_heads": 32, "vocab_size": 32000,
        "seq_len": 2048, "batch": 16,
    },
    "toy": {
        "dim": 32, "hidden_dim": 96, "num_layers": 2, "num_heads": 2, "vocab_size": 128,
        "seq_len": 64, "batch": 4,
    },
}  # fmt: skip
# What each system tries, recompute:micro-batch, most promising first: `--limit` may cut the end off.
CANDIDATES = {
    "1b": {OURS: ("none:8", "paper:16", "none:4"), "peer": ("none:4", "full:16", "none:8")},
    "7b": {OURS: ("paper:4", "paper:2", "full:8", "none:1"), "peer": ("full:4", "full:8", "none:1")},
    "toy": {OURS: ("none:4", "paper:2"), "peer": ("none:4", "full:2")},
}
RECOMPUTE = ("none", "paper", "full")
# Tokens a second of a 7B model on one H200: 57.8% of its peak by 6N + 12LTD, which others have published with
# bfloat16 states; and 60%.
GOALS = {("7b", "H200"): {"goal": 13_100, "stretch": 13_600}}
FUSED_ATTENTION = ("flash", "cudnn", "efficient")
WARM_UP_STEPS, KERNELS = 2, 15


@dataclass
class Bench:
    """What is measured how, and until when.

    Attributes:
        model: a name in MODELS.
        device: `cuda`, or `cpu` to see whether all this runs.
        systems: the installed ones and the Python that runs each, ours first.
        steps: timed steps of one measurement.
        limit_seconds: when to start no further process.
        compiled: whether layers are compiled.
        started: when this began, by the monotonic clock.
        longest_seconds: that a process has taken.
    """

    model: str
    device: str
    systems: dict[str, Path]
    steps: int
    limit_seconds: float
    compiled: bool
    started: float = field(default_factory=time.monotonic)
    longest_seconds: float = 0.0

    @property
    def shape(self) -> dict[str, Any]:
        """Sizes of the model and of a step's batch."""
        return MODELS[self.model]

    def is_over(self, *, share: float = 1.0) -> bool:
        """Tell whether another process would probably not end within this share of the limit."""
        return time.monotonic() - self.started + self.longest_seconds > share * self.limit_seconds

    def measure(self, system: str, setting: str, *, steps: int, profile: bool = False) -> dict[str, Any]:
        """Run one process from start to end; `failure` stands in the result where it did not get there."""
        began = time.monotonic()
        recompute, _, micro_batch = setting.partition(":")
        question = {
            **self.shape, **OPTIMIZER, "device": self.device, "recompute": recompute,
            "micro_batch": int(micro_batch), "compile": False, "compile_layers": self.compiled,
            "threads": torch.get_num_threads(),
        }  # fmt: skip
        process = Process(
            [self.systems[system], "-P", HERE / "peers" / "serve.py", HERE / "peers" / system / "runner.py"],
            threads=question["threads"],
            environment={"PYTORCH_ALLOC_CONF": "expandable_segments:True"} if self.device == "cuda" else {},
        )
        try:
            found = _asked(process, question, steps=steps, profile=profile)
        except Ended as problem:
            found = {"failure": str(problem)}
        finally:
            process.stop()
        found = {"setting": setting, **found, "process_seconds": round(time.monotonic() - began, 1)}
        self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)
        if "seconds" in found:
            tokens = self.shape["batch"] * self.shape["seq_len"]
            found["tokens_per_second"] = tokens / statistics.median(found["seconds"])
        return found


def _asked(process: Process, question: dict[str, Any], *, steps: int, profile: bool) -> dict[str, Any]:
    """Build, warm up, time, and look at one step; ends early where the device's memory does not suffice."""
    began = time.monotonic()
    answers = process.ask(question)
    if "failure" not in answers:
        answers |= process.ask({"steps": WARM_UP_STEPS})
        answers["ready_seconds"] = round(time.monotonic() - began, 1)
    if "failure" not in answers:
        counter = _energy(answers.get("device_uuid"))
        began = time.monotonic()
        answers |= process.ask({"steps": steps})
        answers["watts"] = _mean_watts(counter, time.monotonic() - began)
    if "failure" in answers:
        return {"failure": answers["failure"]}
    looked = process.ask({"profile": KERNELS})
    if not profile:
        looked.pop("kernels", None)
    return {**answers, **looked}


def _energy(uuid: str | None) -> CounterSource | None:
    nvml = this_machine().nvml
    counter = None if uuid is None or nvml is None else nvml_source(nvml, gpus=[uuid], fallback_watts=1.0)
    if counter is not None:
        counter.start()
    return counter


def _mean_watts(counter: CounterSource | None, seconds: float) -> float | None:
    """Return the mean power since the counter's start, None unless all of it was measured."""
    used = None if counter is None else counter.read(seconds)
    return None if used is None or used.provenance != "measured" else round(used.joules / seconds, 1)


def installed() -> tuple[dict[str, Path], list[str]]:
    """Return which Python runs each system, and the peers that are not installed."""
    systems, missing = {OURS: Path(sys.executable)}, []
    for peer, package in PEERS.items():
        own = HERE / "peers" / peer / ".venv" / "bin" / "python"
        if own.exists():
            systems[peer] = own
        elif importlib.util.find_spec(package):
            systems[peer] = Path(sys.executable)
        else:
            missing.append(peer)
    return systems, missing


def search(bench: Bench, *, share: float) -> dict[str, list[dict[str, Any]]]:
    """Try the candidates of each system for two steps, the first of all systems first."""
    tried: dict[str, list[dict[str, Any]]] = {system: [] for system in bench.systems}
    candidates = {system: _candidates(bench.model, system) for system in bench.systems}
    for number in range(max(map(len, candidates.values()))):
        for system, settings in candidates.items():
            if number >= len(settings):
                continue
            if bench.is_over(share=share):
                say(f"{bench.model}, {system}, {settings[number]}: not tried, time is over")
            else:
                found = bench.measure(system, settings[number], steps=2)
                tried[system].append(found)
                say(f"{bench.model}, {system}, {settings[number]}: {_in_words(found)}")
    return tried


def _candidates(model: str, system: str) -> Sequence[str]:
    return CANDIDATES[model][OURS if system == OURS else "peer"]


def best_of(tried: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """Return the fastest setting of each system; a system of which none ran is left out."""
    best = {}
    for system, found in tried.items():
        ran = [one for one in found if "failure" not in one]
        if ran:
            best[system] = max(ran, key=lambda one: one["tokens_per_second"])["setting"]
    return best


def alternate(
    bench: Bench, settings: dict[str, str], *, rounds: int, profile: bool
) -> dict[str, list[dict[str, Any]]]:
    """Measure every system once a round; a round that time runs out in does not count."""
    runs: dict[str, list[dict[str, Any]]] = {system: [] for system in settings}
    for number in range(rounds):
        this_round = {}
        for system, setting in settings.items():
            if bench.is_over():
                say(f"{bench.limit_seconds:.0f} s are over: round {number + 1} of {rounds} is not complete")
                return runs
            found = bench.measure(system, setting, steps=bench.steps, profile=profile and number == 0)
            this_round[system] = found
            say(f"{bench.model}, round {number + 1} of {rounds}, {system}, {setting}: {_in_words(found)}")
        for system, found in this_round.items():
            runs[system].append(found)
    return runs


def _in_words(found: dict[str, Any]) -> str:
    if "failure" in found:
        return f"no result: {found['failure']}"
    memory, watts = found.get("peak_allocated_bytes"), found.get("watts")
    return (
        f"{found['tokens_per_second']:,.0f} tokens/s"
        + (f", {memory / 1e9:.1f} GB" if memory else "")
        + (f", {watts:.0f} W" if watts else "")
        + f", loss {found['loss']:.3f}, ready after {found['ready_seconds']:.0f} s"
    )


def summary(bench: Bench, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return medians over rounds, utilisation and the ratio to the best peer with its spread."""
    ran = {system: [one for one in found if "failure" not in one] for system, found in runs.items()}
    rates = {system: [one["tokens_per_second"] for one in found] for system, found in ran.items() if found}
    medians = {system: round(statistics.median(of_system), 1) for system, of_system in rates.items()}
    best = max((system for system in medians if system != OURS), key=medians.__getitem__, default=None)
    pairs = zip(rates.get(OURS, []), rates[best], strict=False) if best else ()
    ratios = [ours / theirs for ours, theirs in pairs]
    return {
        "ours": medians.get(OURS),
        "peers": {system: medians.get(system) for system in bench.systems if system != OURS},
        "best_peer": best,
        "ratio": round(medians[OURS] / medians[best], 3) if ratios and best else None,
        "ratio_spread": [round(min(ratios), 3), round(max(ratios), 3)] if ratios else None,
        "systems": {system: figures(bench, found) for system, found in ran.items() if found},
        "runs": {system: [round(rate, 1) for rate in of_system] for system, of_system in rates.items()},
    }


def figures(bench: Bench, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a system reached: rate and its spread, utilisation by both counts, memory, power."""
    rates = [one["tokens_per_second"] for one in found]
    model = ModelConfig(
        **{key: bench.shape[key] for key in ("dim", "hidden_dim", "num_layers", "num_heads", "vocab_size")}
    )
    peak = peak_flops_per_second(found[0].get("device_name", ""))
    watts = [one["watts"] for one in found if one["watts"] is not None]

    def utilisation(*, attention: bool) -> float | None:
        flops = flops_per_token(model, bench.shape["seq_len"], attention=attention)
        return None if peak is None else round(statistics.median(rates) * flops / peak, 4)

    return {
        "setting": found[0]["setting"],
        "tokens_per_second": round(statistics.median(rates), 1),
        "spread": [round(min(rates), 1), round(max(rates), 1)],
        "mfu_6n": utilisation(attention=False),
        "mfu_palm": utilisation(attention=True),
        "peak_allocated_bytes": max(one.get("peak_allocated_bytes", 0) for one in found) or None,
        "peak_reserved_bytes": max(one.get("peak_reserved_bytes", 0) for one in found) or None,
        "mean_watts": round(statistics.mean(watts), 1) if watts else None,
        "attention": found[0]["attention"],
        "last_loss": round(found[-1]["loss"], 4),
        "parameters": found[0]["parameters"],
        "torch": found[0]["torch"],
        "ready_seconds": [one["ready_seconds"] for one in found],
    }


def report(bench: Bench, result: dict[str, Any]) -> None:
    """Print the medians beside the goal, and warn of attention that stores its weights."""
    for system, reached in result["systems"].items():
        rate, setting, attention = (reached[key] for key in ("tokens_per_second", "setting", "attention"))
        mfu = "unknown peak, no MFU"
        if reached["mfu_6n"] is not None:
            mfu = f"{reached['mfu_6n']:.1%} of peak by 6N, {reached['mfu_palm']:.1%} by 6N + 12LTD"
        say(f"{bench.model}, {system}, {setting}: {rate:,.0f} tokens/s, {mfu}")
        if bench.device == "cuda" and not is_fused(attention):
            say(f"warning: {system} did not use fused attention alone, but {attention or 'none of torch'}")
    goals = goals_of(bench.model, result["device_name"])
    if goals:
        say(f"goal for {bench.model}: {goals['goal']:,} tokens/s, stretch {goals['stretch']:,}")
    if result["ratio"] is not None:
        low, high = result["ratio_spread"]
        say(f"{bench.model}: {result['ratio']}x {result['best_peer']} ({low} to {high} over the rounds)")


def goals_of(model: str, device_name: str | None) -> dict[str, int]:
    """Return the tokens a second to reach on this device, if there are such."""
    known = [goals for (of, device), goals in GOALS.items() if of == model and device in (device_name or "")]
    return known[0] if known else {}


def is_fused(operators: Sequence[str]) -> bool:
    """Tell whether attention ran by fused kernels alone, from the operators seen in a profile."""
    kernels = [name for name in operators if name.startswith("aten::_scaled_dot_product")]
    return bool(kernels) and all(any(kind in name for kind in FUSED_ATTENTION) for name in kernels)


def about(
    bench: Bench, tried: dict[str, list[dict[str, Any]]], runs: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """Return what a reader needs to judge the numbers, and what did not get to a number."""
    everything = [one for found in (*runs.values(), *tried.values()) for one in found]
    names = [one["device_name"] for one in everything if "device_name" in one]
    name = names[0] if names else None
    return {
        "model": {"name": bench.model, **bench.shape},
        "device_name": name,
        **goals_of(bench.model, name),
        "compiled_layers": bench.compiled,
        "precision": "float32 weights and Adam states, bfloat16 compute",
        "search": tried,
        "failures": [one for found in runs.values() for one in found if "failure" in one],
        **circumstances(torch.get_num_threads()),
    }


def print_kernels(runs: dict[str, list[dict[str, Any]]]) -> None:
    """Print where the time of one step went, system by system."""
    for system, found in runs.items():
        for row in found[0].get("kernels", []) if found else []:
            time_of = f"{row['share']:6.1%} {row['milliseconds']:9.1f} ms {row['calls']:6d} x"
            say(f"{system} {time_of} {row['name'][:90]}")


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, default="7b")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--systems", nargs="+", choices=(OURS, *PEERS), default=[OURS, *PEERS])
    parser.add_argument("--use", nargs="+", metavar="SYSTEM=RECOMPUTE:MICRO_BATCH", type=setting_of)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="steps a round; its figure is their median")
    parser.add_argument("--limit", type=float, default=570, help="seconds after which nothing is started")
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    parser.add_argument("--profile", action="store_true", help="print the kernels that took most time")
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.relative_to(HERE.parent)}")
    options = parser.parse_args(arguments)
    if OURS not in options.systems:
        parser.error(f"--systems needs {OURS}")
    if options.device == "cpu" and options.model != "toy":
        parser.error("--device cpu is for --model toy; train_cpu.py measures CPUs")
    return options


def setting_of(text: str) -> tuple[str, str]:
    """Read `criadero=paper:4`."""
    system, _, setting = text.partition("=")
    recompute, _, micro_batch = setting.partition(":")
    if system not in (OURS, *PEERS) or recompute not in RECOMPUTE or not micro_batch.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not like {OURS}=paper:4")
    if recompute == "paper" and system != OURS:
        raise argparse.ArgumentTypeError(f"{system} has no such policy, use none or full")
    return system, setting


def say(line: str) -> None:
    """Print at once: a run that is ended from outside leaves what it has found so far."""
    print(line, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Find settings, measure in rounds, print the result."""
    options = parsed(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit(
            "no CUDA device: this benchmark measures a GPU\n"
            "hint: `--device cpu --model toy` runs all of it on the CPU; train_cpu.py measures CPUs"
        )
    systems, missing = installed()
    for peer in missing:
        say(f"{peer} is not installed: `make peers` builds its environment")
    chosen = {system: systems[system] for system in options.systems if system in systems}
    bench = Bench(options.model, options.device, chosen, options.steps, options.limit, not options.eager)
    tried: dict[str, list[dict[str, Any]]] = {}
    settings = {system: setting for system, setting in options.use or () if system in chosen}
    if not options.use:
        tried = search(bench, share=0.5 if options.rounds else 1.0)
        settings = best_of(tried)
        say("settings: --use " + " ".join(f"{system}={setting}" for system, setting in settings.items()))
    runs = alternate(bench, settings, rounds=options.rounds, profile=options.profile)
    result = {
        **summary(bench, runs),
        **about(bench, tried, runs),
        "not_installed": missing,
    }
    report(bench, result)
    print_kernels(runs)
    print_result(result, RESULTS, save=options.save)


if __name__ == "__main__":
    main()
