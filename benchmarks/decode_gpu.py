"""Tokens a second of generating on one GPU with weights in bfloat16, 8 and 4 bits; share of its bandwidth.

Weights are random, in the shape of LLaMA-7B or -13B: what is measured does not depend on their values. One
sequence and 8 and 32 together go through the engine, greedy, after a prompt of 32 tokens; the kinds of
weights take turns by rounds, and `plain` is bfloat16 without CUDA graphs. `bandwidth_share` is what one step
has to read (all weights but the embedding, and the keys and values in the middle of the answer) over its
time, by the data sheet's bandwidth; `of_copies` the same by what a copy on this device reaches. Medians over
rounds; the last line is one JSON object.

    python benchmarks/decode_gpu.py --model 7b --rounds 3 --save
    python benchmarks/decode_gpu.py --device cpu --model toy          # does all this run?
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from criadero.generate.cuda_decode import GraphDecoder  # noqa: E402
from criadero.generate.engine import Engine, Request  # noqa: E402
from criadero.generate.kv_cache import BLOCK_TOKENS, block_bytes  # noqa: E402
from criadero.generate.sampling import SamplingConfig  # noqa: E402
from criadero.model.config import ModelConfig  # noqa: E402
from criadero.model.presets import preset  # noqa: E402
from criadero.model.quantized import QuantizedTensor, quantize  # noqa: E402
from criadero.model.transformer import Transformer  # noqa: E402
from criadero.planner.devices import find_device  # noqa: E402
from generate.tiny_model import byte_tokenizer  # noqa: E402
from process import circumstances, print_result  # noqa: E402

RESULTS = HERE / "results" / "decode_gpu.json"
KINDS = {"bfloat16": None, "int8": 8, "int4": 4, "plain": None}
BATCHES = (1, 8, 32)
PROMPT = 32
GOALS = {"bandwidth_share": 0.70, "int8_over_bfloat16": 1.8}


def config_of(name: str) -> ModelConfig:
    """Return a preset, or a model small enough for any processor."""
    if name != "toy":
        return preset(name)
    return ModelConfig(
        vocab_size=320, dim=64, num_layers=2, num_heads=2, num_kv_heads=2, hidden_dim=128, max_seq_len=512
    )


def random_model(config: ModelConfig, device: str, bits: int | None) -> Transformer:
    """Return a model of normal weights, made on the device one matrix at a time."""
    with torch.device("meta"):
        model = Transformer(config)
    for module in model.modules():
        for name, empty in list(module.named_parameters(recurse=False)):
            weight = torch.randn(empty.shape, dtype=torch.bfloat16, device=device) * 0.02
            if empty.ndim == 1:
                weight.fill_(1)
            elif bits is not None:
                weight = quantize(weight, bits=bits)
            setattr(module, name, torch.nn.Parameter(weight, requires_grad=False))
    return model


def engine_of(kind: str, config: ModelConfig, device: str, *, tokens: int) -> Engine:
    """Return an engine of one kind of weights; on a GPU it has to run by graphs, but for `plain`."""
    model = random_model(config, device, KINDS[kind])
    without_graphs = mock.patch("criadero.generate.engine.graph_decoder", return_value=None)
    with without_graphs if kind == "plain" else nullcontext():
        engine = Engine(
            model, byte_tokenizer(), cache_tokens=tokens, prefill_tokens=max(BATCHES) * PROMPT
        )  # all prompts in one step
    if device == "cuda" and isinstance(engine._decoder, GraphDecoder) == (kind == "plain"):
        sys.exit(f"{kind} runs by {type(engine._decoder).__name__}")
    return engine


def seconds_a_step(engine: Engine, batch: int, steps: int) -> float:
    """Return the mean time of decoding one token of each sequence, after all have begun."""
    prompts = [[(7 * n + i) % 250 for i in range(PROMPT)] for n in range(batch)]
    greedy = SamplingConfig(temperature=0, max_tokens=steps + 2)
    for prompt in prompts:
        engine.submit(Request(prompt, greedy, end_ids=()))
    engine.step()
    engine.step()
    assert engine.num_running == batch
    began = time.perf_counter()
    done = engine.counts.decoded
    while engine.num_running == batch:
        engine.step()
    taken = (engine.counts.decoded - done) / batch
    seconds = time.perf_counter() - began
    while engine.has_work:
        engine.step()
    return seconds / taken


def bytes_of_a_step(engine: Engine, batch: int, steps: int) -> int:
    """Return what one step reads at least."""
    model = engine.model
    weights = [model.output_weight, *model.layers.parameters()]
    sizes = [w.size_bytes if isinstance(w, QuantizedTensor) else w.nbytes for w in weights]
    token = block_bytes(model.config, model.norm.weight.dtype) // BLOCK_TOKENS
    return sum(sizes) + batch * token * (PROMPT + steps // 2)


def copy_bandwidth(device: str) -> float:
    """Return bytes a second, read and written, of copying 1 GiB (on a CPU 64 MiB)."""
    size = 1 << (30 if device == "cuda" else 26)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(10):
            target.copy_(source)
        int(target[-1])  # waits for it
        best = max(best, 20 * size / (time.perf_counter() - began))
    return best


def measured(engines: dict[str, Engine], *, rounds: int, steps: int) -> dict[str, dict[int, list[float]]]:
    """Return seconds a step by kind and batch, one for each round; a round before them warms up."""
    found: dict[str, dict[int, list[float]]] = {kind: {batch: [] for batch in BATCHES} for kind in engines}
    for number in range(-1, rounds):
        for batch in BATCHES:
            for kind, engine in engines.items():
                seconds = seconds_a_step(engine, batch, steps)
                if number >= 0:
                    found[kind][batch].append(seconds)
                    print(f"round {number + 1}, {kind}, {batch}: {batch / seconds:,.0f} tokens/s", flush=True)
    return found


def figures(
    engines: dict[str, Engine],
    seconds: dict[str, dict[int, list[float]]],
    *,
    steps: int,
    copies: float,
    peak: float | None,
) -> dict[str, Any]:
    """Return rates and shares of bandwidth by kind and batch."""
    found: dict[str, Any] = {}
    for kind, by_batch in seconds.items():
        for batch, times in by_batch.items():
            middle = statistics.median(times)
            rate = bytes_of_a_step(engines[kind], batch, steps) / middle
            found.setdefault(kind, {})[str(batch)] = {
                "tokens_per_second": round(batch / middle, 1),
                "spread": [round(batch / max(times), 1), round(batch / min(times), 1)],
                "bandwidth_share": None if peak is None else round(rate / peak, 3),
                "of_copies": round(rate / copies, 3),
            }
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=("7b", "13b", "toy"), default="7b")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.relative_to(HERE.parent)}")
    options = parser.parse_args(arguments)
    if options.device == "cpu" and options.model != "toy":
        parser.error("--device cpu is for --model toy; decode_cpu.py measures CPUs")
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device\nhint: `--device cpu --model toy` runs all of it on the CPU")
    config = config_of(options.model)
    tokens = (max(BATCHES) + 1) * (PROMPT + options.steps + BLOCK_TOKENS)
    engines = {kind: engine_of(kind, config, options.device, tokens=tokens) for kind in KINDS}
    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    device = find_device(name)
    copies = copy_bandwidth(options.device)
    seconds = measured(engines, rounds=options.rounds, steps=options.steps)
    peak = device.memory_bytes_per_second if device else None
    found = figures(engines, seconds, steps=options.steps, copies=copies, peak=peak)
    rate = {kind: found[kind]["1"]["tokens_per_second"] for kind in KINDS}
    result = {
        "ours": rate["bfloat16"],
        "peers": {"plain": rate["plain"]},
        "ratio": round(rate["bfloat16"] / rate["plain"], 3),
        "int8_over_bfloat16": round(rate["int8"] / rate["bfloat16"], 3),
        "goals": GOALS,
        "kinds": found,
        "copy_bytes_per_second": round(copies),
        "device_name": name,
        "model": options.model,
        **circumstances(torch.get_num_threads()),
    }
    print_result(result, RESULTS, save=options.save)


if __name__ == "__main__":
    main()
