"""The program with a fault built in: `main(arguments, plan)` runs the command line after arming the faults.

`plan` maps the name of a fault to its options; see FAULTS at the end. Faults live here, in the tests: the
program itself only names the moments (`files.fault_point`, hooks). Also runs as a script, with the plan as
JSON in CRIADERO_FAULTS.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from criadero import files


def kill_at_point(number: int) -> None:
    """SIGKILL this process at the `number`-th moment (from 1) at which a checkpoint is being written."""
    passed = 0

    def count(name: str) -> None:
        nonlocal passed
        passed += in_checkpointer()
        if passed == number:
            os.kill(os.getpid(), signal.SIGKILL)

    files.on_fault_point = count


def kill_in_export() -> None:
    """SIGKILL this process in the middle of writing the model folder."""

    def kill(name: str) -> None:
        if name == "folder-written" and not in_checkpointer():
            os.kill(os.getpid(), signal.SIGKILL)

    files.on_fault_point = kill


def log_points(path: str) -> None:
    """Append the name of each moment of writing a checkpoint to a file."""

    def write(name: str) -> None:
        if in_checkpointer():
            with Path(path).open("a") as stream:
                stream.write(name + "\n")

    files.on_fault_point = write


def in_checkpointer() -> bool:
    """Whether the caller is the thread that writes checkpoints, or one of its workers."""
    import threading

    return threading.current_thread() is not threading.main_thread()


def fill_disk(saves: list[int]) -> None:
    """Writing the tensors of these saves, counted from 1, meets a full disk."""
    begun = 0

    def refuse(name: str) -> None:
        nonlocal begun
        if name == "checkpoint-file-written":
            begun += 1
            if begun in saves:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    files.on_fault_point = refuse


def limit_file_bytes(limit: int) -> None:
    """No file may grow beyond so many bytes (RLIMIT_FSIZE)."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def log_samples(path: str) -> None:
    """Write the sample indices of each step, this rank's, to `path.RANK`."""
    from criadero.train import loop

    original = loop.train_step

    def train_step(model: Any, optimizer: Any, micro_batches: Any, **options: Any) -> Any:
        samples = [int(s) for batch in micro_batches for s in batch.sample_indices if s >= 0]
        with Path(f"{path}.{os.environ.get('RANK', 0)}").open("a") as stream:
            stream.write(json.dumps([options["state"].step + 1, samples]) + "\n")
        return original(model, optimizer, micro_batches, **options)

    loop.train_step = train_step


def nan_loss(step: int, rank: int) -> None:
    """The loss of one rank is NaN at one step; each rank says on stderr what the step did to its weights."""
    from criadero.train import loop
    from criadero.train import step as stepping

    accumulate, train_step = stepping._accumulate, loop.train_step
    steps = 0

    def poisoned(*args: Any, **options: Any) -> Any:
        loss = accumulate(*args, **options)
        return loss * float("nan") if steps == step and int(os.environ.get("RANK", 0)) == rank else loss

    def watched(model: Any, optimizer: Any, *args: Any, **options: Any) -> Any:
        nonlocal steps
        steps += 1
        before = [parameter.detach().to_local().clone() for parameter in model.parameters()]
        try:
            return train_step(model, optimizer, *args, **options)
        finally:
            after = [parameter.detach().to_local() for parameter in model.parameters()]
            same = all(old.equal(new) for old, new in zip(before, after, strict=True))
            print(
                f"weights of step {steps}: {'unchanged' if same else 'changed'}", file=sys.stderr, flush=True
            )

    stepping._accumulate, loop.train_step = poisoned, watched


def sleep_before_step(step: int, rank: int) -> None:
    """One rank sleeps for ever while its batch of `step`, from 1, is prepared."""
    from criadero.shards.batches import Batches

    if int(os.environ.get("RANK", 0)) != rank:
        return
    original = Batches.share
    calls = 0

    def share(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == step:
            time.sleep(3600)
        return original(*args, **options)

    Batches.share = share


def spike_at_samples(samples: list[int]) -> None:
    """The gradient of a micro-batch with one of these training samples is a thousand times too large."""
    from criadero.train import step as stepping

    original = stepping.summed_loss

    def spiking(model: Any, batch: Any, **options: Any) -> Any:
        loss = original(model, batch, **options)
        hit = set(batch.sample_indices) & set(samples)
        return loss + (loss - loss.detach()) * 1e3 if hit else loss

    stepping.summed_loss = spiking


def kill_in_rollback(number: int, before: str) -> None:
    """SIGKILL this process in its `number`-th roll-back, from 1, before a method of the session is called."""
    from criadero.train.session import Session

    roll_back, method = Session.roll_back, getattr(Session, before)
    count = 0
    inside = False

    def counted(session: Any) -> bool:
        nonlocal count, inside
        count, inside = count + 1, True
        try:
            return roll_back(session)
        finally:
            inside = False

    def deadly(*args: Any, **options: Any) -> Any:
        if inside and count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(*args, **options)

    Session.roll_back = counted
    setattr(Session, before, deadly)


def kill_at_step(step: int) -> None:
    """SIGKILL this process when `step`, from 1, is about to begin for the second time."""
    from criadero.train import loop

    original = loop.train_step
    seen = 0

    def train_step(*args: Any, **options: Any) -> Any:
        nonlocal seen
        seen += options["state"].step + 1 == step
        if seen == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **options)

    loop.train_step = train_step


def terminate_at_step(step: int, rank: int = 0) -> None:
    """SIGTERM this process, if it is that rank, just before `step`, which becomes the last."""
    from criadero.train import loop

    original = loop.train_step

    def train_step(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        if options["state"].step + 2 == step and int(os.environ.get("RANK", 0)) == rank:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    loop.train_step = train_step


def terminate_in(place: str, signals: int = 1, seconds: float = 0.02) -> None:
    """SIGTERM this process, once or more, while it scores held-out text, hashes shards or builds them.

    Each batch scored, each file hashed and each document read takes `seconds`.
    """
    from criadero.shards import write
    from criadero.train import heldout

    places = {
        "heldout": (heldout, "summed_loss"),
        "verify": (files, "sha256_file"),
        "build": (write, "_as_tokens"),
    }
    module, name = places[place]
    original = getattr(module, name)
    calls = 0

    def slow(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            for _ in range(signals):
                os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(seconds)
        return original(*args, **options)

    setattr(module, name, slow)


def slow_steps(seconds: float) -> None:
    """Each step takes longer, so that a signal can be timed."""
    from criadero.train import loop

    original = loop.train_step

    def train_step(*args: Any, **options: Any) -> Any:
        time.sleep(seconds)
        return original(*args, **options)

    loop.train_step = train_step


def slow_import() -> None:
    """Reading the config takes long, and that it has begun is said on stderr."""
    from criadero import config

    original = config.load

    def load(*args: Any, **options: Any) -> Any:
        print("loading", file=sys.stderr, flush=True)
        time.sleep(20)
        return original(*args, **options)

    config.load = load


FAULTS = {
    fault.__name__: fault
    for fault in (
        kill_at_point,
        kill_in_export,
        log_points,
        fill_disk,
        limit_file_bytes,
        log_samples,
        nan_loss,
        sleep_before_step,
        spike_at_samples,
        kill_in_rollback,
        kill_at_step,
        terminate_at_step,
        terminate_in,
        slow_import,
        slow_steps,
    )
}


def main(arguments: list[str], plan: dict[str, dict[str, Any]]) -> None:
    """Arm the faults of the plan and run the program; ends with SystemExit."""
    for name, options in plan.items():
        FAULTS[name](**options)
    from criadero.cli import app

    sys.argv = ["criadero", *arguments]
    app.main()


if __name__ == "__main__":
    main(sys.argv[1:], json.loads(os.environ.get("CRIADERO_FAULTS", "{}")))
