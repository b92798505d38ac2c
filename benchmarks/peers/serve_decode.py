"""One system that continues prompts, in its own process and environment: JSON lines in, JSON lines out.

    PYTHON -P serve_decode.py RUNNER.py

The first line on stdin is the setup (`file`, `folder`, `threads`, `context`, `sequences`, what the runner
needs of them); the answer names the version. Then `{"prompts": [[ids]], "steps": N}` is answered by the
seconds until all prompts had their first token, and those of N more tokens of each. Tokens are the likeliest
ones. Nothing runs between questions. Each runner defines `open_model(setup)`, which returns the version and a
function that takes prompts and returns an iterator whose every item is one more token of each.
"""

from __future__ import annotations

import json
import os
import resource
import runpy
import sys
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any


def main() -> None:
    """Answer on the real stdout; whatever libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    setup = json.loads(sys.stdin.readline())
    version, continued = runpy.run_path(sys.argv[1])["open_model"](setup)
    print(json.dumps({"version": version}), file=answers)
    for line in sys.stdin:
        question = json.loads(line)
        print(json.dumps(timed(continued(question["prompts"]), question["steps"])), file=answers)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"peak_rss_bytes": peak}), file=answers)


def timed(tokens: Iterator[list[int]], steps: int) -> dict[str, Any]:
    """Return seconds of prompts and of further steps, and what was said."""
    start = time.perf_counter()
    found = [next(tokens)]
    first = time.perf_counter()
    found += islice(tokens, steps)
    end = time.perf_counter()
    return {"prompt_seconds": first - start, "step_seconds": end - first, "tokens": found}


if __name__ == "__main__":
    main()
