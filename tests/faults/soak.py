"""Before a release: 20 runs, each cut by kill -9 at a random moment, resumed, and equal to the uncut one.

`make soak` runs it; the name keeps it out of `make test`. Every process is a real start of the program. A run
under torchrun is stopped by SIGTERM as well, which torchrun passes on to its ranks.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from criadero.runs import read_metrics
from faults.cuts import cut_and_resume
from faults.outcome import Outcome, assert_same, outcome_of
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


def test_torchrun_stops_in_order_on_sigterm_and_goes_on(tiny: TinyRun, tmp_path: Path, uncut: Outcome):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command += ["-m", "criadero", "train", str(tiny.config(tmp_path))]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environ) as process:
        metrics = tmp_path / "run" / "metrics.jsonl"
        while not any(row["step"] >= 2 for row in read_metrics(metrics)):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.wait(40)
    stopped = outcome_of(tmp_path / "run")
    assert len(stopped.curve) < len(uncut.curve)
    assert stopped.state["train"]["step"] == len(stopped.curve)
    assert subprocess.run(command, env=environ, timeout=90, check=False).returncode == 0
    losses = [row[1] for row in outcome_of(tmp_path / "run").curve]
    assert losses == pytest.approx([row[1] for row in uncut.curve], abs=2e-5)
    print(f"torchrun: stopped at step {len(stopped.curve)} and went on to the same curve")
