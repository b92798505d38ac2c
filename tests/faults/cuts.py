"""One run cut by kill -9 at random moments until it has come to its end."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

from faults.program import start
from tiny_run import TinyRun

STEP_SECONDS = 0.03  # steps are slowed so that cuts fall between, inside and after saves


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
            program.wait_for("step ")
            delay = chance.uniform(0, 20 * 2 * STEP_SECONDS)
            time.sleep(delay)
            program.send(signal.SIGKILL)
            ended = program.end()
        moments.append(f"{delay:.2f} s" + ("" if ended.code == -signal.SIGKILL else " (had ended)"))
    with start("train", config, folder=folder, name="last", real=real) as program:
        ended = program.end()
    assert ended.code == 0, ended.err
    resumed = next((line for line in ended.err.splitlines() if line.startswith("resuming")), "from the start")
    return f"seed {seed}: killed after {', '.join(moments)}; {resumed.split('/')[-1].strip('`')}"
