"""MB/s on one core of each recipe of the corpus, and of single steps beside the same steps in datatrove.

    python benchmarks/corpus.py [--part steps recipes workers memory] [--mb 16] [--rounds 5] [--save]

`steps`: the C4 filter and MinHash signatures, ours and datatrove's in its own pinned environment
(`make peers`), taking turns over the same web-page-sized texts from samples/, new ones each round. `recipes`:
every source of samples/recipe.toml, and CommonCrawl by CCNet's whole path over WET files made of those texts,
each in a fresh process, one worker. `workers`: that path with 2 workers beside 1, taking turns. `memory`: its
peak when the input grows four times. MB are 10^6 bytes of the text that is read. The last line is one JSON
object; its `ratio` is that of the C4 filter.
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from process import Process, circumstances, print_result

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results" / "corpus.json"
OURS, PEER = "criadero", "datatrove"
STEPS = ("c4_filter", "minhash")
PARTS = ("steps", "recipes", "workers", "memory")
PAGE_CHARACTERS = 3500  # the median page of the C4 sample has 1,500, the mean 2,300; WET pages are longer
CCNET = "commoncrawl"
WET_FILES = 8


def main() -> None:
    """Measure the chosen parts and print the result."""
    options = parse_options()
    result: dict[str, Any] = {"benchmark": "corpus", "unit": "MB/s"}
    with tempfile.TemporaryDirectory(prefix="corpus-benchmark-") as folder:
        pages = list(take_pages(int(options.mb * 1e6)))
        result["megabytes"] = round(megabytes(pages), 2)
        for part in options.part:
            result[part] = MEASURES[part](pages, Path(folder), options.rounds)
    if "steps" in result:
        first = result["steps"]["c4_filter"]
        result |= {key: first[key] for key in ("ours", "peers", "ratio", "ratio_spread", "runs")}
    result |= circumstances(threads=1)
    print_result(result, RESULTS, save=options.save)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--mb", type=float, default=16.0, help="text in all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    return parser.parse_args()


def take_pages(size_bytes: int) -> Iterator[str]:
    """Yield real texts of the size of web pages: the C4 sample, then the samples' books in pieces."""
    taken = 0
    for text in every_page():
        yield text
        taken += len(text.encode())
        if taken >= size_bytes:
            return


def every_page() -> Iterator[str]:
    for path in sorted((ROOT / "samples" / "raw" / "c4").glob("*.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            yield from (json.loads(line)["text"] for line in lines)
    for path in sorted((ROOT / "samples" / "raw" / "books").glob("*.jsonl.xz")):
        with lzma.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                text = json.loads(line)["text"]
                yield from (text[i : i + PAGE_CHARACTERS] for i in range(0, len(text), PAGE_CHARACTERS))


def megabytes(pages: Sequence[str]) -> float:
    return sum(len(page.encode()) for page in pages) / 1e6


def measure_steps(pages: Sequence[str], folder: Path, rounds: int) -> dict[str, Any]:
    """Time each step in both systems, turn by turn."""
    texts = folder / "texts.jsonl"
    texts.write_text("".join(json.dumps(page) + "\n" for page in pages), encoding="utf-8")
    return {step: measure_step(step, texts, rounds) for step in STEPS}


def measure_step(step: str, texts: Path, rounds: int) -> dict[str, Any]:
    peer = HERE / "peers" / PEER
    commands = {
        OURS: [Path(sys.executable), HERE / "peers" / "criadero" / "text_runner.py"],
        PEER: [peer / ".venv" / "bin" / "python", peer / "runner.py"],
    }
    if not commands[PEER][0].exists():
        sys.exit(f"{commands[PEER][0]} is missing: run `make peers` first")
    rates: dict[str, list[float]] = {name: [] for name in commands}
    kept = dict.fromkeys(commands, 0)
    with ExitStack() as stack:
        processes = {}
        for name, (python, runner) in commands.items():
            processes[name] = Process([python, "-P", HERE / "peers" / "serve_texts.py", runner], threads=1)
            stack.callback(processes[name].stop)
        versions = {
            name: process.ask({"step": step, "texts": str(texts)})["versions"]
            for name, process in processes.items()
        }
        for number in range(rounds):
            for name, process in processes.items():
                answer = process.ask({"start": number, "step": rounds})
                rates[name].append(answer["bytes"] / 1e6 / answer["seconds"])
                kept[name] += answer["kept"]
            said = ", ".join(f"{name} {found[-1]:.2f}" for name, found in rates.items())
            print(f"{step}, round {number + 1} of {rounds}, MB/s: {said}", flush=True)
    return {**compared(rates[OURS], rates[PEER], PEER), "kept": kept, "versions": versions[PEER]}


def compared(ours: list[float], theirs: list[float], peer: str) -> dict[str, Any]:
    """Return medians, their ratio, and its spread over the rounds."""
    medians = statistics.median(ours), statistics.median(theirs)
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return {
        "ours": round(medians[0], 3),
        "peers": {peer: round(medians[1], 3)},
        "ratio": round(medians[0] / medians[1], 3),
        "ratio_spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "runs": {OURS: [round(rate, 3) for rate in ours], peer: [round(rate, 3) for rate in theirs]},
    }


def measure_recipes(pages: Sequence[str], folder: Path, rounds: int) -> dict[str, Any]:
    """Time each source, in a fresh process per round; the first round of all, then the second."""
    recipes = {CCNET: ccnet_recipe(pages, folder)}
    samples = ROOT / "samples" / "recipe.toml"
    if samples.is_file():
        recipes |= dict.fromkeys(sources_without_models(samples), samples)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in recipes}
    for number in range(rounds):
        for name, recipe in recipes.items():
            runs[name].append(run_source(recipe, name, folder / f"{name}-{number}"))
            print(f"{name}, round {number + 1} of {rounds}: {rate_of(runs[name][-1]):.2f} MB/s", flush=True)
    return {
        name: {
            "mb_per_second": round(statistics.median(map(rate_of, found)), 3),
            "spread": [round(pick(map(rate_of, found)), 3) for pick in (min, max)],
            "megabytes": round(found[0]["characters_in"] / 1e6, 2),
            "documents_in": found[0]["documents_in"],
            "documents_out": found[0]["documents_out"],
            "peak_rss_bytes": max(run["peak_rss_bytes"] for run in found),
        }
        for name, found in runs.items()
    }


def measure_workers(pages: Sequence[str], folder: Path, rounds: int) -> dict[str, Any]:
    """Time CCNet's path with one and with two workers of Ray, turn by turn."""
    recipe = ccnet_recipe(pages, folder)
    rates: dict[int, list[float]] = {1: [], 2: []}
    for number in range(rounds):
        for workers, found in rates.items():
            out = folder / f"workers-{workers}-{number}"
            found.append(rate_of(run_source(recipe, CCNET, out, workers=workers)))
        print(f"workers, round {number + 1} of {rounds}: {rates[2][-1] / rates[1][-1]:.2f}x", flush=True)
    return compared(rates[2], rates[1], "one worker")


def measure_memory(pages: Sequence[str], folder: Path, _rounds: int) -> dict[str, Any]:
    """Return the peak memory of CCNet's path on a quarter of the pages and on all."""
    peaks = {}
    for name, part in (("quarter", pages[: len(pages) // 4]), ("whole", pages)):
        recipe = ccnet_recipe(part, folder, name=f"memory-{name}")
        peaks[name] = run_source(recipe, CCNET, folder / f"memory-{name}-out")["peak_rss_bytes"]
    return {"peak_rss_bytes": peaks, "growth": round(peaks["whole"] / peaks["quarter"], 3)}


MEASURES = {
    "steps": measure_steps,
    "recipes": measure_recipes,
    "workers": measure_workers,
    "memory": measure_memory,
}


def run_source(recipe: Path, source: str, out: Path, *, workers: int | None = None) -> dict[str, Any]:
    """Build one source in a fresh process on one thread."""
    command = [sys.executable, HERE / "corpus_source.py", recipe, source, out]
    command += ["--workers", str(workers)] if workers else []
    done = subprocess.run(
        ["env", "OMP_NUM_THREADS=1", *command], stdout=subprocess.PIPE, text=True, check=True
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def rate_of(run: dict[str, Any]) -> float:
    """Return MB/s of text read; the samples are English, a character is a byte within half a percent."""
    return run["characters_in"] / 1e6 / run["seconds"]


def sources_without_models(recipe: Path) -> list[str]:
    """Return the sources of a recipe that need nothing from another source."""
    from criadero.corpus.build import plan
    from criadero.corpus.config import load_recipe

    return [p.source for p in plan(load_recipe(recipe)) if p.recipe is not None and p.source != CCNET]


def ccnet_recipe(pages: Sequence[str], folder: Path, *, name: str = "ccnet") -> Path:
    """Write pages as WET files with a recipe for CCNet's path, and its model once; return the recipe."""
    files = folder / name
    recipe = files / "recipe.toml"
    if not recipe.exists():
        files.mkdir()
        for number in range(WET_FILES):
            write_wet(files / f"{number:05}.warc.wet.gz", pages[number::WET_FILES])
        model = ccnet_model(files, folder)
        recipe.write_text(
            f"[sources.{CCNET}]\nkind = 'commoncrawl'\ninputs = ['*.warc.wet.gz']\n"
            f"perplexity_model = '{model}'\n"
        )
    return recipe


def write_wet(path: Path, pages: Sequence[str]) -> None:
    """Write pages as CommonCrawl's WET files have them."""
    with path.open("wb") as out:
        for number, page in enumerate(pages):
            body = page.encode()
            head = (
                "WARC/1.0\r\nWARC-Type: conversion\r\n"
                f"WARC-Target-URI: http://{path.name.split('.')[0]}.example/{number}\r\n"
                "WARC-Date: 2020-01-01T00:00:00Z\r\n"
                f"WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-{number:012}>\r\n"
                f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            out.write(gzip.compress(head.encode() + body + b"\r\n\r\n", 6, mtime=0))


def ccnet_model(wet: Path, folder: Path) -> Path:
    """Train the perplexity model of CCNet's path on one of the samples, once; return its folder."""
    from criadero.corpus.sources.commoncrawl.prepare import prepare
    from criadero.corpus.sources.commoncrawl.recipe import CommonCrawlConfig

    config = CommonCrawlConfig(references=None)
    texts = ROOT / "samples" / "raw" / "books" / "treasury-of-david.jsonl.xz"
    inputs = sorted(wet.glob("*.warc.wet.gz"))
    made = prepare(config, finished={config.train_on: texts}, folder=folder / "models", inputs=inputs)
    assert made.perplexity_model is not None
    return made.perplexity_model


if __name__ == "__main__":
    main()
