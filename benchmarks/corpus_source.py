"""Build one source in a fresh process and print how long it took and how much memory; for corpus.py.

    python benchmarks/corpus_source.py RECIPE SOURCE OUT [--workers N]

Without workers the source's tasks run in this process, one after the other, and peak memory is that of all of
it. The models of other sources that it needs are made before the clock starts. One JSON object on stdout.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import nullcontext
from pathlib import Path


def main() -> None:
    """Build the source the recipe names and say what it cost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("source")
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int)
    options = parser.parse_args()

    from criadero.corpus.build import plan
    from criadero.corpus.config import load_recipe
    from criadero.corpus.engine.executor import Inline
    from criadero.corpus.engine.run import run_source

    config = load_recipe(options.recipe)
    [recipe] = [planned.recipe for planned in plan(config) if planned.source == options.source]
    assert recipe is not None, "the source needs models: name them in the recipe"
    if options.workers:
        from criadero.corpus.engine.ray_executor import RayExecutor

        executor = RayExecutor(options.workers)
    else:
        executor = nullcontext(Inline())
    with executor as started:
        if options.workers:
            start_workers(started, options.out.with_name(f"{options.out.name}-warm"))
        start = time.perf_counter()
        result = run_source(options.source, recipe, options.out, executor=started, settings=config.engine)
        seconds = time.perf_counter() - start
    print(
        json.dumps(
            {
                "seconds": seconds,
                "characters_in": result.characters_in,
                "documents_in": result.documents_in,
                "documents_out": result.documents,
                "peak_rss_bytes": peak_rss_bytes(),
            }
        )
    )


def peak_rss_bytes() -> int:
    """Return this program's own peak; that of `getrusage` begins with what the parent had at the fork."""
    status = Path("/proc/self/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def start_workers(executor: object, out: Path) -> None:
    """Run a recipe of nothing, so that starting Ray is not timed."""
    from criadero.corpus.engine.run import run_source
    from criadero.corpus.sources.plain import TextConfig, stages

    text = out.with_suffix(".txt")
    text.write_text("warm")
    run_source("warm", stages(TextConfig(), source="warm", inputs=[text]), out, executor=executor)


if __name__ == "__main__":
    main()
