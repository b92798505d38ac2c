"""Two ranks that trained and saved leave in order: no abort at exit, ten exits in a row.

Run as a script, this file is the driver: it imports torch once and forks pairs of ranks that end like any
Python program, through the interpreter's own exit.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

ROUNDS = 5
TESTS = Path(__file__).parent.parent


def test_two_ranks_exit_cleanly_five_times(tmp_path: Path):
    environ = os.environ | {"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    driver = subprocess.run(
        [sys.executable, __file__, str(tmp_path)], env=environ, capture_output=True, text=True, timeout=90
    )
    assert driver.returncode == 0, driver.stderr
    assert driver.stdout.split() == ["0", "0"] * 3 + ["75", "75"] * 2, driver.stderr


def train_and_save(device, folder: Path, *, stop: bool) -> None:
    import torch

    from criadero.checkpoint.config import CheckpointConfig
    from criadero.checkpoint.save import Checkpointer
    from criadero.errors import StoppedEarly
    from criadero.parallel.config import ParallelConfig
    from criadero.parallel.mesh import build_mesh
    from criadero.parallel.parallelize import parallelize
    from toy import batch, loss_of, toy

    model = toy()
    parallelize(model, build_mesh(ParallelConfig(), device), param_dtype=torch.float32)
    with Checkpointer(folder, CheckpointConfig()) as checkpointer:
        for step in (1, 2):
            loss_of(model, *batch(), valid=27).backward()
            checkpointer.save(step, dict(model.named_parameters()), state={}, tokens=0, config_sha256="")
        if stop:
            raise StoppedEarly("stopped at step 2")


def rank(rank: int, port: int, folder: Path, *, stop: bool) -> int:
    import torch

    from criadero.errors import StoppedEarly
    from criadero.parallel.launch import Launch, distributed

    try:
        launch = Launch(rank, rank, 2, f"127.0.0.1:{port}")
        with distributed(launch, torch.device("cpu"), timeout_seconds=30) as device:
            train_and_save(device, folder, stop=stop)
    except StoppedEarly as outcome:
        return outcome.exit_code
    return 0


def main(folder: Path) -> int:
    from ranks import PRELOADED, free_port

    for module in PRELOADED:
        __import__(module)
    gc.freeze()  # so that ending a child does not walk through, and copy, what it shares with this process
    for turn in range(ROUNDS):
        port = free_port()
        children = []
        for each in range(2):
            child = os.fork()
            if child == 0:
                return rank(each, port, folder / str(turn), stop=turn >= 3)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(*codes, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
