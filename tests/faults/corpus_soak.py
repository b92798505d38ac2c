"""Before a release: 20 corpus builds, each killed at random moments, end as the undisturbed one.

`make soak` runs it; the name keeps it out of `make test`. A round kills the whole process group of a build,
workers and Ray included, then starts the same command again, kills single workers of that one, and compares
every file of the corpus with those of a build that nobody disturbed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from criadero.files import sha256_file
from descendants import descendants, title

ROUNDS = 20
WORKER_KILLS = 2
PATIENCE_SECONDS = 300
RAW = Path(__file__).parents[2] / "samples" / "raw"
# Every kind of source and of exchange; the model of perplexity is trained on few books to be quick.
RECIPE = f"""
[sources.books]
kind = "books"
inputs = ["{RAW}/books/sherlock-holmes.jsonl.xz"]
near_duplicates = {{}}

[sources.wikipedia]
kind = "wikipedia"
inputs = ["{RAW}/wikipedia/bgwiki-*.bz2"]

[sources.c4]
kind = "c4"
inputs = ["{RAW}/commoncrawl/*.wet.gz"]
made_from = "wet"

[sources.github]
kind = "github"
inputs = ["{RAW}/github/*"]

[sources.arxiv]
kind = "arxiv"
inputs = ["{RAW}/arxiv/*.tar"]

[sources.stackexchange]
kind = "stackexchange"
inputs = ["{RAW}/stackexchange/*"]

[sources.commoncrawl]
kind = "commoncrawl"
inputs = ["{RAW}/commoncrawl/*.wet.gz"]
train_on = "books"
"""


def test_twenty_builds_killed_at_random_end_as_the_undisturbed_build(tmp_path: Path):
    started = time.monotonic()
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    out = tmp_path / "corpus"  # keys hold the place of models, so that every build has the same
    with _build(recipe, out) as process:
        assert process.wait(PATIENCE_SECONDS) == 0
    whole_seconds = time.monotonic() - started
    expected = _corpus(out)
    first_seed = random.SystemRandom().randrange(1_000_000)
    killed = 0
    for seed in range(first_seed, first_seed + ROUNDS):
        shutil.rmtree(out)
        chance = random.Random(seed)
        cut = _killed_group(recipe, out, chance.uniform(0, whole_seconds))
        workers = _ended_without_some_workers(recipe, out, chance, whole_seconds)
        killed += len(workers)
        moments = ", ".join(f"{moment:.1f} s" for moment in workers) or "none"
        print(f"seed {seed}: {cut}; then workers killed after: {moments}", flush=True)
        assert _corpus(out) == expected
        _assert_funnel_adds_up(out)
    seconds = time.monotonic() - started
    print(
        f"corpus soak: {ROUNDS} of {ROUNDS} builds cut by kill -9, and {killed} workers killed, end with the "
        f"{len(expected)} files of the undisturbed build, byte for byte; {seconds:.0f} s in all, "
        f"{whole_seconds:.0f} s undisturbed"
    )


@contextmanager
def _build(recipe: Path, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start the program in a process group of its own, which does not outlive the block."""
    command = [sys.executable, "-m", "criadero", "corpus", "build", str(recipe), str(out), "--workers", "2"]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    log = recipe.with_name(f"{out.name}.log")
    with log.open("ab") as stream:
        process = subprocess.Popen(command, env=environ, stdout=stream, stderr=stream, start_new_session=True)
    try:
        yield process
        assert process.returncode in (0, -signal.SIGKILL), log.read_text()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _killed_group(recipe: Path, out: Path, delay_seconds: float) -> str:
    """Kill a build with all its processes after a while; return what was done then."""
    with _build(recipe, out) as process:
        with suppress(subprocess.TimeoutExpired):
            process.wait(delay_seconds)
        family = descendants()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 30
    while alive := [p for p in family if "criadero" in title(p) or "ray" in title(p)]:
        assert time.monotonic() < deadline, f"still alive: {[title(p) for p in alive]}"
        time.sleep(0.05)
    journal = out / "journal.jsonl"
    tasks = journal.read_text().count('{"task"') if journal.exists() else 0
    finished = len(list(out.glob("documents/*/manifest.json")))
    return f"killed after {delay_seconds:.1f} s with {tasks} tasks and {finished} of 7 sources done"


def _ended_without_some_workers(
    recipe: Path, out: Path, chance: random.Random, whole_seconds: float
) -> list[float]:
    """Run a build to its end, killing single workers; return the moments at which one was."""
    started, moments = time.monotonic(), list[float]()
    with _build(recipe, out) as process:
        for _ in range(WORKER_KILLS):
            with suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0, whole_seconds / 4))
            while process.poll() is None and not (workers := _workers()):
                time.sleep(0.02)
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.kill(chance.choice(workers), signal.SIGKILL)
                    moments.append(time.monotonic() - started)
        process.wait(PATIENCE_SECONDS)
        assert process.returncode == 0, recipe.with_name(f"{out.name}.log").read_text()
    return moments


def _workers() -> list[int]:
    """Return the workers of Ray, those that wait or only start included."""
    return [p for p in descendants() if title(p).startswith(("ray::_perform", "ray::IDLE"))]


def _corpus(out: Path) -> dict[str, str]:
    """Return the sha256 of every file, leftovers included; the journal alone tells what was done when."""
    own = ("journal.jsonl", "run.lock", "work/run.lock")
    files = {str(path.relative_to(out)): path for path in out.rglob("*") if not path.is_dir()}
    empty = [path for path in out.rglob("*") if path.is_dir() and not any(path.iterdir())]
    assert not empty, f"empty folders are left: {empty}"
    return {name: sha256_file(path) for name, path in sorted(files.items()) if name not in own}


def _assert_funnel_adds_up(out: Path) -> None:
    command = [sys.executable, "-m", "criadero", "corpus", "funnel", str(out), "--json"]
    printed = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
    for name, source in json.loads(printed)["sources"].items():
        left = source["documents_out"] + sum(source["dropped"].values())
        assert source["documents_in"] == left, f"{name} does not add up: {source}"
