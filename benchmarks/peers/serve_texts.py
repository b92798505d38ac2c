"""One measured text step in its own process and environment: JSON lines in, JSON lines out.

    PYTHON -P serve_texts.py RUNNER.py

The first line on stdin is `{"step": NAME, "texts": FILE}`, a file with one JSON string a line; the answer
tells versions. `{"start": I, "step": N}` is answered by `{"seconds": S, "bytes": B, "kept": K}` for one pass
over every Nth text from I on, so that no round sees the texts of another, and the end of stdin by
`{"peak_rss_bytes": ...}`. Nothing runs between questions, so processes can take turns. Each runner defines
`STEPS`, name -> function that makes the step, and `VERSIONS`; a step says whether it keeps a text.
"""

from __future__ import annotations

import json
import os
import resource
import runpy
import sys
import time


def main() -> None:
    """Answer on the real stdout; whatever libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    runner = runpy.run_path(sys.argv[1])
    question = json.loads(sys.stdin.readline())
    with open(question["texts"], encoding="utf-8") as lines:
        texts = [json.loads(line) for line in lines]
    step = runner["STEPS"][question["step"]]()
    step(texts[0])  # models load with the first text
    print(json.dumps({"versions": runner["VERSIONS"]}), file=answers)
    for line in sys.stdin:
        part = texts[json.loads(line)["start"] :: json.loads(line)["step"]]
        start = time.perf_counter()
        kept = sum(map(step, part))
        seconds = time.perf_counter() - start
        size_bytes = sum(len(text.encode()) for text in part)
        print(json.dumps({"seconds": seconds, "bytes": size_bytes, "kept": kept}), file=answers)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"peak_rss_bytes": peak}), file=answers)


if __name__ == "__main__":
    main()
