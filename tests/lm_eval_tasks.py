"""Three tasks for lm-eval, one of each kind, on three questions of our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

QUESTIONS = [
    {"question": "What is a llama?", "choices": ["a camelid", "a kind of sheep", "ü"], "gold": 0},
    {"question": "¿Dónde viven?", "choices": ["in the Andes", "under the sea", "日本"], "gold": 2},
    {"question": "How many?", "choices": ["3", "4", "a flock of them"], "gold": 1},
]


def task(name: str, output_type: str, metric: str, **fields: Any) -> dict[str, Any]:
    common = {"task": name, "output_type": output_type, "metric_list": [{"metric": metric}]}
    return {**common, "doc_to_text": "{{question}}", **fields}


TASKS = [
    task("choose", "multiple_choice", "acc", doc_to_choice="{{choices}}", doc_to_target="{{gold}}"),
    task(
        "answer", "generate_until", "exact_match", doc_to_target="{{choices[gold]}}",
        generation_kwargs={"until": ["\n\n"], "max_gen_toks": 8},
    ),
    task("document", "loglikelihood_rolling", "bits_per_byte", doc_to_text="", doc_to_target="{{question}}"),
]  # fmt: skip


def write_tasks(folder: Path) -> None:
    """Write the tasks and their questions as lm-eval includes them."""
    (folder / "questions.json").write_text("\n".join(json.dumps(question) for question in QUESTIONS))
    data = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "questions.json")}},
    }
    for task in TASKS:
        written = task | data | {"test_split": "test", "target_delimiter": " "}
        (folder / f"{task['task']}.yaml").write_text(json.dumps(written))  # JSON is YAML
