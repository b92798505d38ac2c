"""lm-eval's own tasks on the scorer and the engine, beside transformers on the same weights."""

from __future__ import annotations

import codecs
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from lm_eval.api.instance import Instance

from criadero.evaluate.lm_eval import CriaderoLM
from criadero.evaluate.scoring import ScoreRequest
from generate.tiny_model import BOS, byte_tokenizer, tiny_model
from lm_eval_tasks import QUESTIONS, TASKS, transformers_likelihood, write_model, write_tasks
from naive_scorer import naive_score

SCRIPT = """
import json, sys
from pathlib import Path
import lm_eval
from lm_eval.tasks import TaskManager
from criadero.evaluate.lm_eval import CriaderoLM

model, tasks, out = map(Path, sys.argv[1:4])
found = lm_eval.simple_evaluate(
    model=CriaderoLM.load(model, dtype="float32"), tasks=sys.argv[4:],
    task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
)
out.write_text(json.dumps(found["samples"], default=str))
"""


def instance(kind: str, *arguments: Any) -> Instance:
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_model(folder)
    return folder


@pytest.fixture(scope="module")
def samples(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What lm-eval notes of every question, by task."""
    work = tmp_path_factory.mktemp("lm_eval")
    write_tasks(work)
    arguments = [str(folder), str(work), str(work / "out.json"), *(task["task"] for task in TASKS)]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, timeout=200,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(work / "home")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, list[dict[str, Any]]] = json.loads((work / "out.json").read_text())
    return found


def test_lm_evals_tasks_have_transformers_numbers(samples, folder: Path):
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = byte_tokenizer()

    def likelihood(context: list[int], text: list[int]) -> float:
        return transformers_likelihood(model, context, text)[0]

    for number, question in enumerate(QUESTIONS):
        ids = tokenizer.encode(question["question"], bos=True)
        (chosen,) = [one for one in samples["choose"] if one["doc_id"] == number]
        expected = [likelihood(ids, tokenizer.encode(" " + text)) for text in question["choices"]]
        assert [float(value) for value, _ in chosen["filtered_resps"]] == pytest.approx(expected, rel=1e-5)
        (answer,) = [one for one in samples["answer"] if one["doc_id"] == number]
        written = model.generate(
            torch.tensor([ids]),
            max_new_tokens=8,
            do_sample=False,
            eos_token_id=257,
            suppress_tokens=[259, 260],
        )
        # What a limit cuts off in the middle of a character is not written.
        until_cut = codecs.getincrementaldecoder("utf-8")("replace")
        assert answer["resps"] == [
            [until_cut.decode(tokenizer.token_bytes.join(written[0, len(ids) :].tolist()))]
        ]
        (document,) = [one for one in samples["document"] if one["doc_id"] == number]
        expected_document = likelihood([BOS], tokenizer.encode(question["question"]))
        assert float(document["resps"][0][0]) == pytest.approx(expected_document, rel=1e-5)


def test_a_text_longer_than_the_context_is_scored_whole():
    lm = CriaderoLM(tiny_model(max_seq_len=16), byte_tokenizer())
    (total,) = lm.loglikelihood_rolling(
        [instance("loglikelihood_rolling", "forty bytes of text in three windows....")]
    )
    ids = (BOS, *b"forty bytes of text in three windows....")
    first = naive_score(lm._model, ScoreRequest(ids[:1], ids[1:17]))
    second = naive_score(lm._model, ScoreRequest(ids[16:17], ids[17:33]))
    third = naive_score(lm._model, ScoreRequest(ids[24:33], ids[33:]))
    assert total == pytest.approx(first.logprob + second.logprob + third.logprob, rel=1e-5)


def test_sampled_answers_repeat_and_stop_where_they_should():
    lm = CriaderoLM(tiny_model(), byte_tokenizer())
    options = {"do_sample": True, "temperature": 1.0, "max_gen_toks": 12, "until": ["e"]}
    requests = [instance("generate_until", "abc", options) for _ in range(6)]
    texts = lm.generate_until(requests)
    assert texts == lm.generate_until(requests)
    assert len(set(texts)) > 1
    assert not any("e" in text for text in texts)
    assert lm.generate_until([]) == []
