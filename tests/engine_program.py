"""A corpus build as a program of its own, for tests that kill it.

python engine_program.py OUT inline N      kill itself with SIGKILL at the N-th moment a write can be cut
python engine_program.py OUT ray SECONDS   on two workers, each document takes so long
python engine_program.py OUT memory N      print the peak memory in kB after N documents
python engine_program.py OUT full BYTES    with files that can have no more than BYTES
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path

import engine_recipes
from criadero import files
from criadero.corpus.engine.config import EngineConfig
from criadero.corpus.engine.executor import Inline
from criadero.corpus.engine.run import run_source
from criadero.corpus.engine.stage import Each, Exchange, Read, Recipe
from criadero.errors import CriaderoError


def recipe(seconds: float = 0.0) -> Recipe:
    return (
        Read(engine_recipes.splits(4), engine_recipes.make_reader, {"documents": 30, "bad_every": 11}),
        Each("slow", engine_recipes.make_harmful, {"harm": {"s2:5": "raise"}, "seconds": seconds}),
        Exchange("lines", engine_recipes.LineDedup),
        Each("short", engine_recipes.make_short, {"least": 20}, score="length"),
    )


def kill_at(moment: int) -> None:
    passed = 0

    def count(_name: str) -> None:
        nonlocal passed
        passed += 1
        if passed == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    files.on_fault_point = count


def large(documents: int) -> Recipe:
    return (
        Read(engine_recipes.splits(1), engine_recipes.make_reader, {"documents": documents, "padding": 3000}),
        Each("identity", engine_recipes.make_identity),
        Exchange("lines", engine_recipes.LineDedup),
    )


def main() -> None:
    out, mode, value = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    if mode == "inline":
        kill_at(int(value))
        run_source("made", recipe(), out, executor=Inline())
    elif mode == "ray":
        from criadero.corpus.engine.ray_executor import RayExecutor

        with RayExecutor(2) as executor:
            run_source("made", recipe(value), out, executor=executor)
    elif mode == "memory":
        settings = EngineConfig(memory_bytes=256 << 20)
        run_source("made", large(int(value)), out, executor=Inline(), settings=settings)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    else:
        # Ignored, a write beyond the limit is an error like that of a full disk.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(value), resource.RLIM_INFINITY))
        try:
            run_source("made", large(3000), out, executor=Inline())
        except CriaderoError as problem:
            print(json.dumps([type(problem).__name__, str(problem)]))


if __name__ == "__main__":
    main()
