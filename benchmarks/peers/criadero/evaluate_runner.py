"""criadero's scorer on the same items: JSON lines like those of peers/lm_eval/runner.py.

{"model": path, "dtype": name} opens a model; {"task": name, "file": path, "settings": {...}, "sizes": {...}}
scores all items of a file.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from criadero.evaluate.encoding import Encoder
from criadero.evaluate.items import read_items
from criadero.evaluate.runner import records_of
from criadero.evaluate.scoring import Scorer
from criadero.evaluate.task import RULES, is_right
from criadero.evaluate.tasks import TASKS
from criadero.formats.load import LoadedModel, load_model


def score(loaded: LoadedModel, question: dict[str, Any]) -> dict[str, Any]:
    """Return log-probabilities and right answers of every item, by the rules that need no other request."""
    task = TASKS[question["task"]]
    settings = {**task.defaults, **question["settings"]}
    settings.pop("answer_context", None)  # lm-eval does not ask for it
    questions = task.questions(read_items(Path(question["file"])), settings)
    scorer = Scorer(loaded.model, **question.get("sizes", {}))
    start_seconds = time.perf_counter()
    encoder = Encoder(loaded.tokenizer, bos=None, most_tokens=loaded.config.max_seq_len)
    records = {record.id: record for record in records_of(scorer, questions, encoder, settings)}
    seconds = time.perf_counter() - start_seconds
    ordered = [records[q.id] for q in questions]
    items = [
        {"id": r.id, "logprobs": r.logprobs, "right": {rule: is_right(r, rule) for rule in RULES[:2]}}
        for r in ordered
    ]
    counts = scorer.counts
    return {
        "seconds": seconds, "asked": counts.asked, "forwarded": counts.forwarded + counts.padded,
        "items": items,
    }  # fmt: skip


def main() -> None:
    loaded = None
    for line in sys.stdin:
        question = json.loads(line)
        if "model" in question:
            dtype = getattr(torch, question["dtype"])
            loaded = load_model(
                Path(question["model"]), dtype=dtype, device=torch.device("cpu"), keep_quantized=False
            )
            answer: dict[str, Any] = {}
        else:
            assert loaded is not None
            answer = score(loaded, question)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
