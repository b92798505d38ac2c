"""Scoring benchmarks by likelihood, beside lm-eval with its Hugging Face backend.

    python benchmarks/evaluate.py MODEL --data data/benchmarks --items 500 --rounds 3 --save

MODEL is a Hugging Face folder, read by both. The same items, drawn with a seed, by lm-eval's own tasks with
only their data replaced; rounds in turns. Prints tokens forwarded, seconds and their ratio for every task,
and every item on which the two do not agree. `make peers` builds lm-eval's environment.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from process import HERE, Process, circumstances, print_result

Row = dict[str, Any]


def _letters(row: Row) -> Row:
    """Return a question with choices as the dataset of ARC and OpenBookQA has them."""
    query = row["query"].removeprefix("Question: ").removesuffix("\nAnswer:")
    choices = {"text": row["choices"], "label": [chr(65 + i) for i in range(len(row["choices"]))]}
    return {"question": query, "question_stem": query, "choices": choices, "answerKey": chr(65 + row["gold"])}


# Ours: (name in lm-eval, split, its row from the published one, the rule of lm-eval's metric, settings).
TASKS: dict[str, tuple[str, str, Callable[[Row], Row], str, dict[str, Any]]] = {
    "piqa": ("piqa", "validation", dict, "characters", {}),
    "hellaswag": ("hellaswag", "validation", dict, "characters", {}),
    "winogrande": ("winogrande", "validation", dict, "none", {}),
    "arc_easy": ("arc_easy", "test", _letters, "characters", {}),
    "arc_challenge": ("arc_challenge", "test", _letters, "characters", {}),
    "openbookqa": ("openbookqa", "test", _letters, "characters", {}),
    "siqa": ("social_iqa", "validation", dict, "none", {}),
    "boolq": ("boolq", "validation", lambda row: {**row, "label": int(row["answer"])}, "none", {}),
    "mmlu": ("mmlu", "test", dict, "none", {"header": "lm-eval"}),
}
METRIC = {"characters": "acc_norm", "none": "acc"}


def draw(task: str, data: Path, *, items: int, folder: Path) -> tuple[Path, dict[str, dict[str, str]]]:
    """Write a sample of a benchmark for both; return our file and lm-eval's files by its task and split."""
    name, split, convert, _, _ = TASKS[task]
    lines = [json.loads(line) for line in (data / f"{task}.jsonl").read_bytes().splitlines()]
    asked = [line for line in lines if line["id"].startswith(split)]
    chosen = sorted(random.Random(f"0/{task}").sample(range(len(asked)), min(items, len(asked))))
    sample = [asked[i] for i in chosen]
    ours = folder / f"{task}.jsonl"
    dev = [line for line in lines if line["id"].startswith("dev/")]
    ours.write_text("".join(json.dumps(line) + "\n" for line in (*dev, *sample)))
    by_task: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    groups = {line["id"].split("/")[1] for line in sample} if dev else set()
    for part, rows in (
        ("dev", [line for line in dev if line["id"].split("/")[1] in groups]),
        (split, sample),
    ):
        for line in rows:
            of = f"{name}_{line['id'].split('/')[1]}" if dev else name
            by_task[of][part].append(convert(line["item"]))
    files: dict[str, dict[str, str]] = {}
    for of, parts in by_task.items():
        files[of] = {}
        for part, rows in parts.items():
            path = folder / f"{of}.{part}.json"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            files[of][part] = str(path)
        if not dev:
            files[of]["train"] = files[of][split]  # lm-eval opens it, for examples that are not asked for
    return ours, files


def compare(task: str, ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Return how the answers of both compare, item by item."""
    _, _, _, rule, _ = TASKS[task]
    metric, differing, worst = METRIC[rule], [], 0.0
    for own, other in zip(ours["items"], theirs["items"], strict=True):
        worst = max(worst, *(abs(a - b) for a, b in zip(own["logprobs"], other["logprobs"], strict=True)))
        if own["right"][rule] != bool(other["metrics"][metric]):
            differing.append({"id": own["id"], "ours": own["logprobs"], "lm_eval": other["logprobs"]})
    right = [own["right"][rule] for own in ours["items"]]
    return {
        "items": len(right),
        "accuracy": statistics.mean(right),
        "lm_eval_accuracy": statistics.mean(float(other["metrics"][metric]) for other in theirs["items"]),
        "largest_difference_nats": worst,
        "differing": differing,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    opened = {"model": str(options.model), "dtype": options.dtype, "batch": options.batch}
    ours = Process([sys.executable, HERE / "peers/criadero/evaluate_runner.py"], threads=2)
    peer = HERE / "peers/lm_eval"
    theirs = Process([peer / ".venv/bin/python", peer / "runner.py"], threads=2)
    ours.ask(opened)
    theirs.ask(opened)
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for task in options.tasks.split(","):
            file, files = draw(task, options.data, items=options.items, folder=Path(folder))
            rounds = []
            for _ in range(options.rounds):
                own = ours.ask({"task": task, "file": str(file), "settings": TASKS[task][4]})
                other = theirs.ask({"tasks": files})
                rounds.append((own["seconds"], other["seconds"]))
            measured[task] = {
                **compare(task, own, other),
                "seconds": [own for own, _ in rounds],
                "lm_eval_seconds": [other for _, other in rounds],
                "ratio": statistics.median(other / own for own, other in rounds),
                "forwarded": own["forwarded"],
                "lm_eval_forwarded": other["forwarded"],
            }
            print(_line(task, measured[task]), flush=True)
    settings = {name: getattr(options, name) for name in ("items", "rounds", "batch", "dtype")}
    result = {**circumstances(2), "model": options.model.name, **settings, "tasks": measured}
    print_result(result, HERE / "results" / "evaluate.json", save=options.save)


def _line(task: str, found: dict[str, Any]) -> str:
    tokens = found["lm_eval_forwarded"] / found["forwarded"]
    return (
        f"{task:<14} {found['items']:>5} items  {100 * found['accuracy']:5.1f} (lm-eval "
        f"{100 * found['lm_eval_accuracy']:5.1f}), {len(found['differing'])} differ, "
        f"{found['largest_difference_nats']:.1e} nats  {statistics.median(found['seconds']):7.1f} s "
        f"(lm-eval {statistics.median(found['lm_eval_seconds']):7.1f} s, {found['ratio']:.2f}x), "
        f"tokens {tokens:.2f}x"
    )


if __name__ == "__main__":
    main()
