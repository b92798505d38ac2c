"""The moments of a save, and one run cut by kill -9 at random ones until it has come to its end."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

from faults.program import start
from tiny_run import STEPS, TinyRun

# The moments of one save, in order: what a kill may hit.
MOMENTS = [
    "checkpoint-file-written",
    "file-written",  # state.json
    "file-synced",
    "checkpoint-before-manifest",
    "file-written",  # manifest.json
    "file-synced",
    "folder-written",
    "folder-renamed",
    "checkpoint-before-latest",
    "file-written",  # latest
    "file-synced",
]
STEP_SECONDS = 0.1  # steps are slowed so that cuts fall everywhere: inside steps, inside saves, between them


def cut_and_resume(tiny: TinyRun, folder: Path, *, seed: int, real: bool, cuts: int = 1) -> str:
    """Start the run, kill it `cuts` times, each a random time after it began to train, then let it end.

    Returns one line that says what happened, with the seed that repeats it (up to the machine's timing).
    """
    chance = random.Random(seed)
    config = tiny.config(folder)
    plan = {"slow_steps": {"seconds": STEP_SECONDS}}
    moments = []
    for cut in range(cuts):
        with start("train", config, folder=folder, plan=plan, name=f"cut{cut}", real=real) as program:
            program.wait_for("step 1/")
            delay = chance.uniform(0, (STEPS - 1) * STEP_SECONDS)
            time.sleep(delay)
            program.send(signal.SIGKILL)
            ended = program.end()
        assert ended.code == -signal.SIGKILL, ended.err
        moments.append(f"{delay:.2f} s")
    with start("train", config, folder=folder, name="last", real=real) as program:
        ended = program.end()
    assert ended.code == 0, ended.err
    resumed = next((line for line in ended.err.splitlines() if line.startswith("resuming")), "from the start")
    return f"seed {seed}: killed after {', '.join(moments)}; {resumed.split('/')[-1].strip('`')}"
