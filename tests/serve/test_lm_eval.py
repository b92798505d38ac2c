"""lm-eval against the server, as its users run it; its numbers against transformers' on the same weights."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from criadero.formats.load import load_model
from generate.tiny_model import BOS, byte_tokenizer
from lm_eval_tasks import QUESTIONS, TASKS, transformers_likelihood, write_model, write_tasks
from serve.running import running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as transformers writes it, with its tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    write_model(folder)
    return folder


@pytest.fixture(scope="module")
def samples(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What lm-eval notes of every question, by task, in the questions' order."""
    work = tmp_path_factory.mktemp("lm_eval")
    write_tasks(work)
    with running(model=load_model(folder).model) as server:
        settings = f"model=tiny,base_url={server.url}/v1/completions,max_length=512,num_concurrent=3"
        command = [sys.executable, "-m", "lm_eval", "--model", "local-completions", "--log_samples"]
        command += ["--model_args", f"{settings},tokenizer={folder},tokenizer_backend=huggingface"]
        command += ["--include_path", str(work), "--output_path", str(work / "out")]
        command += ["--tasks", ",".join(task["task"] for task in TASKS)]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(work / "home")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    return {task["task"]: _noted(work / "out", task["task"]) for task in TASKS}


def _noted(folder: Path, task: str) -> list[dict[str, Any]]:
    (file,) = folder.rglob(f"samples_{task}_*.jsonl")
    return sorted((json.loads(line) for line in file.read_text().splitlines()), key=lambda one: one["doc_id"])


@pytest.fixture(scope="module")
def log_likelihood(folder: Path):
    """Of the tokens of a text behind those of its context, and whether each is the likeliest."""
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    return functools.partial(transformers_likelihood, model)


def test_choices_are_as_likely_as_to_transformers(samples, log_likelihood):
    tokenizer = byte_tokenizer()
    for question, noted in zip(QUESTIONS, samples["choose"], strict=True):
        context = tokenizer.encode(question["question"])
        expected = [log_likelihood(context, tokenizer.encode(" " + text)) for text in question["choices"]]
        answered = [(float(likelihood), greedy == "True") for likelihood, greedy in noted["filtered_resps"]]
        assert [greedy for _, greedy in answered] == [greedy for _, greedy in expected]
        assert [value for value, _ in answered] == pytest.approx([value for value, _ in expected], rel=1e-5)
        best = max(range(3), key=lambda i: expected[i][0])
        assert noted["acc"] == float(best == question["gold"])


def test_answers_are_the_greedy_ones(samples, folder):
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = byte_tokenizer()
    for question, noted in zip(QUESTIONS, samples["answer"], strict=True):
        ids = tokenizer.encode(question["question"])
        out = model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False, eos_token_id=257)
        assert noted["resps"] == [[tokenizer.decode(out[0, len(ids) :].tolist())]]


def test_documents_are_as_likely_as_to_transformers(samples, log_likelihood):
    tokenizer = byte_tokenizer()
    for question, noted in zip(QUESTIONS, samples["document"], strict=True):
        expected, _ = log_likelihood([BOS], tokenizer.encode(question["question"]))
        assert float(noted["resps"][0][0]) == pytest.approx(expected, rel=1e-5)
