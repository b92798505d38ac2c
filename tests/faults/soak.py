"""Before a release: 20 runs, each cut by kill -9 at a random moment, resumed, and equal to the uncut one.

`make soak` runs it; the name keeps it out of `make test`. Every process is a real start of the program.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

from faults.cuts import cut_and_resume
from faults.outcome import assert_same, outcome_of
from faults.program import run
from tiny_run import TinyRun

RUNS = 20


def test_twenty_runs_cut_at_random_end_as_the_uncut_run(tiny: TinyRun, tmp_path: Path):
    started = time.monotonic()
    uncut = tmp_path / "uncut"
    assert run("train", tiny.config(uncut), folder=uncut, real=True).code == 0
    expected = outcome_of(uncut / "run")
    first_seed = random.SystemRandom().randrange(1_000_000)
    for seed in range(first_seed, first_seed + RUNS):
        folder = tmp_path / str(seed)
        print(cut_and_resume(tiny, folder, seed=seed, real=True), flush=True)
        assert_same(outcome_of(folder / "run"), expected)
    seconds = time.monotonic() - started
    print(f"soak: {RUNS} of {RUNS} cut runs equal the uncut run bit for bit, {seconds:.0f} s")
