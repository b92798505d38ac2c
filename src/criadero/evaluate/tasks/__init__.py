"""The benchmarks of the paper, one small task each. Entry points: `TASKS` and `SUITES`."""

from __future__ import annotations

from criadero.evaluate.task import Task
from criadero.evaluate.tasks import bias, choices, mmlu, passages

TASKS: dict[str, Task] = {
    task.name: task for task in (*choices.TASKS, *passages.TASKS, mmlu.TASK, *bias.TASKS)
}

SUITES = {
    "common-sense": (
        "boolq", "piqa", "siqa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa"
    ),
    "mmlu": ("mmlu",),
    "race": ("race_middle", "race_high"),
    "bias": ("crows_pairs", "winogender", "truthfulqa"),
}  # fmt: skip
SUITES["llama1"] = (*SUITES["common-sense"], *SUITES["race"], *SUITES["mmlu"], *SUITES["bias"])
