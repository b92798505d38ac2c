"""One measured system in its own process and environment: JSON lines in, JSON lines out.

    PYTHON -P serve.py RUNNER.py

The first line on stdin is the shape (`Shape` as an object, `threads`, `device`); the answer tells parameters,
versions and device. Then every `{"steps": N}` is answered by `{"seconds": [...], "loss": ...}`, on CUDA with
peak memory too, `{"profile": N}` by the N operators that took most time in one step and the kernels that did
attention, and the end of stdin by `{"peak_rss_bytes": ...}`. `{"failure": ...}` takes the place of an answer
where the device's memory does not suffice, and is the last one. Nothing runs between questions, so processes
can take turns. Needs only torch: it runs in environments that do not have criadero. Each runner defines
`training(shape)`, a context manager that yields the step and the number of parameters.
"""

from __future__ import annotations

import json
import os
import resource
import runpy
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch

Batch = tuple[torch.Tensor, torch.Tensor]
Step = Callable[[torch.Tensor, torch.Tensor], float]
Training = Callable[[dict[str, Any]], AbstractContextManager[tuple[Step, int]]]


def main() -> None:
    """Answer on the real stdout; whatever libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    training: Training = runpy.run_path(sys.argv[1])["training"]
    shape = json.loads(sys.stdin.readline())
    torch.set_num_threads(shape["threads"])
    try:
        for answer in answered(training, shape):
            print(json.dumps(answer), file=answers)
    except torch.OutOfMemoryError as problem:
        print(json.dumps({"failure": str(problem).partition(". ")[0]}), file=answers)
        return
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"peak_rss_bytes": peak}), file=answers)


def answered(training: Training, shape: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Build, then yield an answer to each question on stdin."""
    torch.manual_seed(0)
    tokens = torch.randint(shape["vocab_size"], (shape["batch"], shape["seq_len"] + 1))
    batch = tokens[:, :-1].contiguous().to(shape["device"]), tokens[:, 1:].contiguous().to(shape["device"])
    with training(shape) as (step, num_parameters):
        yield {"parameters": num_parameters, "torch": torch.__version__, **device_of(shape)}
        for line in sys.stdin:
            question = json.loads(line)
            if "profile" in question:
                yield profiled(step, batch, device=shape["device"], count=question["profile"])
            else:
                yield timed(step, batch, device=shape["device"], steps=question["steps"])


def device_of(shape: dict[str, Any]) -> dict[str, Any]:
    """Say which GPU this is, as its driver and NVML call it."""
    if shape["device"] != "cuda":
        return {}
    return {
        "device_name": torch.cuda.get_device_name(),
        "device_uuid": f"GPU-{torch.cuda.get_device_properties(0).uuid}",
    }


def timed(step: Step, batch: Batch, *, device: str, steps: int) -> dict[str, Any]:
    """Return the seconds of each step, and the most memory that tensors and torch's allocator have held."""
    seconds, loss = [], 0.0
    for _ in range(steps):
        start = time.perf_counter()
        loss = step(*batch)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    answer = {"seconds": seconds, "loss": loss}
    if device == "cuda":
        answer["peak_allocated_bytes"] = torch.cuda.max_memory_allocated()
        answer["peak_reserved_bytes"] = torch.cuda.max_memory_reserved()
    return answer


def profiled(step: Step, batch: Batch, *, device: str, count: int) -> dict[str, Any]:
    """Return where the time of one step went, by kernel on CUDA and by operator on the CPU."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        timed(step, batch, device=device, steps=1)
    entries = profile.key_averages()
    attention = {entry.key for entry in entries if "scaled_dot_product" in entry.key}
    entries = [entry for entry in entries if not entry.is_user_annotation]  # spans that hold others
    on_cuda = [entry for entry in entries if entry.device_type == torch.autograd.DeviceType.CUDA]
    rows = [
        (entry.key, entry.self_device_time_total if on_cuda else entry.self_cpu_time_total, entry.count)
        for entry in on_cuda or entries
    ]
    total = sum(microseconds for _, microseconds, _ in rows)
    rows.sort(key=lambda row: -row[1])
    return {
        "attention": sorted(attention),
        "kernels": [
            {"name": name, "milliseconds": microseconds / 1e3, "share": microseconds / total, "calls": calls}
            for name, microseconds, calls in rows[:count]
        ],
    }


if __name__ == "__main__":
    main()
