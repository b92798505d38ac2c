"""One measured system in its own process and environment: JSON lines in, JSON lines out.

    PYTHON -P serve.py RUNNER.py

The first line on stdin is the shape (`Shape` as an object, `threads`); the answer tells parameters and
versions. Then every `{"steps": N}` is answered by `{"seconds": [...], "loss": ...}`, and the end of stdin by
`{"peak_rss_bytes": ...}`. Nothing runs between questions, so processes can take turns. Needs only torch: it
runs in environments that do not have criadero. Each runner defines `training(shape)`, a context manager that
yields the step and the number of parameters.
"""

from __future__ import annotations

import json
import os
import resource
import runpy
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

Step = Callable[[torch.Tensor, torch.Tensor], float]
Training = Callable[[dict[str, Any]], AbstractContextManager[tuple[Step, int]]]


def main() -> None:
    """Answer on the real stdout; whatever libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    training: Training = runpy.run_path(sys.argv[1])["training"]
    shape = json.loads(sys.stdin.readline())
    torch.set_num_threads(shape["threads"])
    torch.manual_seed(0)
    tokens = torch.randint(shape["vocab_size"], (shape["batch"], shape["seq_len"] + 1))
    tokens_BT, targets_BT = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    with training(shape) as (step, num_parameters):
        print(json.dumps({"parameters": num_parameters, "torch": torch.__version__}), file=answers)
        for line in sys.stdin:
            seconds = []
            for _ in range(json.loads(line)["steps"]):
                start = time.perf_counter()
                loss = step(tokens_BT, targets_BT)
                seconds.append(time.perf_counter() - start)
            print(json.dumps({"seconds": seconds, "loss": loss}), file=answers)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"peak_rss_bytes": peak}), file=answers)


if __name__ == "__main__":
    main()
