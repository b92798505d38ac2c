"""The scripts in examples/ do what they say: stopped by SIGTERM they save, and started again they finish."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from criadero.runs import read_metrics, summarise
from descendants import descendants
from ranks import free_port
from tiny_run import TinyRun

pytestmark = [pytest.mark.xdist_group("examples"), pytest.mark.timeout(240)]

EXAMPLES = Path(__file__).parent.parent / "examples"
SBATCH, TORCHRUN = EXAMPLES / "slurm" / "train.sbatch", EXAMPLES / "torchrun" / "train.sh"
STEPS = 120
OVERRIDES = ("run.log_seconds=0.1", "heldout.every_steps=0", "checkpoint.every_steps=1000")

SRUN = """#!{python}
# A stand-in for srun: two tasks on this machine, signals passed on, the highest exit code returned.
import os, signal, subprocess, sys
command = [word for word in sys.argv[1:]]
assert command.pop(0) == "--kill-on-bad-exit=0"
tasks = []
for rank in ("0", "1"):
    step = {{"SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_STEP_NODELIST": "localhost"}}
    tasks.append(subprocess.Popen(command, env=os.environ | step))
signal.signal(signal.SIGTERM, lambda *_: [task.send_signal(signal.SIGTERM) for task in tasks])
sys.exit(max(task.wait() for task in tasks))
"""
SCONTROL = '#!/bin/bash\necho "$@" >> "$FAKE_SLURM/scontrol.log"\n'


@pytest.mark.parametrize("path", [SBATCH, TORCHRUN], ids=lambda path: path.name)
def test_a_script_is_valid_bash(path: Path):
    subprocess.run(["bash", "-n", path], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "--severity=warning", path], check=True)


@contextmanager
def started(command: list[str | Path], environ: dict[str, str], log: Path) -> Iterator[subprocess.Popen]:
    """Start a script in a session of its own; what it left behind is killed in the end."""
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command, env=os.environ | environ, stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for_steps(process: subprocess.Popen, log: Path, *, starts: int = 1) -> None:
    """Wait until the run has shown its first step, so many times."""
    deadline = time.monotonic() + 100
    while log.read_text().count("step 1/") < starts:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def stop(process: subprocess.Popen, log: Path, run: Path) -> None:
    """Send SIGTERM and expect an orderly end: code 75, and a run that is stopped before its last step."""
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 75, log.read_text()
    stopped = summarise(run)
    assert stopped.state == "stopped"
    assert 1 <= stopped.step < STEPS


@pytest.mark.slow
def test_the_slurm_script_saves_queues_itself_again_and_goes_on(tiny: TinyRun, tmp_path: Path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in (("srun", SRUN.format(python=sys.executable)), ("scontrol", SCONTROL)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    environ = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "FAKE_SLURM": str(tmp_path),
        "SLURM_JOB_ID": "4711",
        "SLURM_CPUS_PER_TASK": "1",
        "MASTER_PORT": str(free_port()),
    }
    command = ["bash", SBATCH, tiny.config(tmp_path, steps=STEPS), *OVERRIDES]
    log = tmp_path / "log.txt"
    with started(command, environ, log) as process:
        wait_for_steps(process, log)
        stop(process, log, tmp_path / "run")
    assert (tmp_path / "scontrol.log").read_text() == "requeue 4711\n"
    with started(command, environ, log) as process:
        assert process.wait(100) == 0, log.read_text()
    assert summarise(tmp_path / "run").state == "finished"
    rows = [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in row]
    assert rows == list(range(1, STEPS + 1))
    assert (tmp_path / "scontrol.log").read_text() == "requeue 4711\n"


@pytest.mark.slow
def test_the_torchrun_script_outlives_a_killed_rank_and_saves_when_it_is_stopped(
    tiny: TinyRun, tmp_path: Path
):
    environ = {"PYTHON": sys.executable, "NPROC_PER_NODE": "2", "OMP_NUM_THREADS": "1"}
    log = tmp_path / "log.txt"
    command = [TORCHRUN, tmp_path / "run", tiny.config(tmp_path, steps=STEPS), *OVERRIDES]
    with started(command, environ, log) as process:
        wait_for_steps(process, log)
        ranks = [pid for pid in descendants() if "RANK=1" in environ_of(pid)]
        os.kill(ranks[-1], signal.SIGKILL)
        wait_for_steps(process, log, starts=2)
        stop(process, log, tmp_path / "run")


def environ_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/environ").read_text().split("\0")


def test_the_slurm_script_asks_for_what_stopping_and_going_on_need():
    requests = [
        line.removeprefix("#SBATCH ") for line in SBATCH.read_text().splitlines() if "#SBATCH" in line
    ]
    assert {"--signal=TERM@120", "--requeue", "--open-mode=append"} <= set(requests)
    assert not any("secret" in line or "key" in line for line in requests)
