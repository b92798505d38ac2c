"""Three tasks for lm-eval, one of each kind, on three questions of our own, and a model to ask them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

from foreign_models import random_llama
from generate.tiny_model import byte_tokenizer

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


def write_model(folder: Path) -> None:
    """Write a model of 512 tokens of context as transformers does, with its tokenizer of bytes."""
    random_llama(vocab_size=261, max_position_embeddings=512).save_pretrained(folder)
    byte_tokenizer().save(folder)


def transformers_likelihood(
    model: transformers.LlamaForCausalLM, context: list[int], text: list[int]
) -> tuple[float, bool]:
    """The log-probability of a text behind its context, by tokens; whether each is the likeliest."""
    with torch.inference_mode():
        logits = model(torch.tensor([context + text])).logits[0, len(context) - 1 : -1]
    ids = torch.tensor(text)
    chosen = logits.log_softmax(-1).gather(1, ids[:, None])
    return chosen.sum().item(), bool((logits.argmax(-1) == ids).all())
