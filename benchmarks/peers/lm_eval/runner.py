"""lm-eval with its Hugging Face backend: its own tasks, only their data replaced by local files.

Answers JSON lines: {"model": folder, "dtype": name, "batch": size} opens a model;
{"tasks": {name of lm-eval's: {split: file of JSON lines}}} scores all their items.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager


class Counting(HFLM):
    """Counts the tokens of every forward pass, padding included."""

    forwarded = 0

    def _model_call(self, inps: Any, *args: Any, **kwargs: Any) -> Any:
        self.forwarded += inps.numel()
        return super()._model_call(inps, *args, **kwargs)


def score(lm: Counting, tasks: dict[str, dict[str, str]], manager: TaskManager) -> dict[str, Any]:
    """Return what lm-eval finds for every item, in the order of the files."""
    instances, docs = [], []
    for name, files in tasks.items():
        local: dict[str, Any] = {
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": files},
        }
        if name.startswith("mmlu"):
            local["num_fewshot"] = 5
        task = manager._factory.build(manager._index[name], overrides=local, registry=manager._index)
        task.build_all_requests(rank=0, world_size=1)
        instances += task.instances
        docs += [(task, doc) for doc in task.eval_docs]
    lm.forwarded = 0
    start_seconds = time.perf_counter()
    answers = lm.loglikelihood(instances)
    seconds = time.perf_counter() - start_seconds
    found: dict[tuple[str, int], list[Any]] = {}
    for instance, answer in zip(instances, answers, strict=True):
        found.setdefault((instance.task_name, instance.doc_id), []).append(answer)
    items = [
        {"logprobs": [p for p, _ in results], "metrics": task.process_results(doc, results)}
        for (task, doc), results in zip(docs, found.values(), strict=True)
    ]
    return {"seconds": seconds, "forwarded": lm.forwarded, "items": items}


def main() -> None:
    lm, manager = None, TaskManager()
    output, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        question = json.loads(line)
        if "model" in question:
            lm = Counting(
                pretrained=question["model"],
                dtype=question["dtype"],
                batch_size=question["batch"],
                device="cpu",
            )
            answer: dict[str, Any] = {}
        else:
            assert lm is not None
            lm.batch_size_per_gpu = question.get("batch", lm.batch_size_per_gpu)
            answer = score(lm, question["tasks"], manager)
        print(json.dumps(answer, default=float), file=output, flush=True)


if __name__ == "__main__":
    main()
