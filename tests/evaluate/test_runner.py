"""Evaluation runs: what is kept, what a killed run goes on from, what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from criadero.errors import ConfigError, DataError, RunError, TokenizerError, UsageError
from criadero.evaluate import runner
from criadero.evaluate.encoding import Encoder
from criadero.evaluate.items import open_benchmarks, read_items
from criadero.evaluate.runner import Subject, choose_tasks, evaluate, settings_of
from criadero.evaluate.scoring import ScoreRequest
from criadero.evaluate.task import Candidate, Question
from criadero.evaluate.tasks import TASKS
from criadero.runs import RunLock
from generate.tiny_model import BOS, byte_tokenizer, tiny_model
from lm_eval_tasks import write_model
from naive_scorer import naive_score

SUBJECT = Subject(tiny_model(), byte_tokenizer(), {"name": "tiny"})


def write_piqa(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "piqa.jsonl"
    rows = [
        {"goal": f"Do {n}.", "sol1": f"it{n % 3}", "sol2": "not it", "label": n % 2} for n in range(count)
    ]
    path.write_text(
        "".join(json.dumps({"id": f"validation/{n}", "item": row}) + "\n" for n, row in enumerate(rows))
    )
    return path


def run(path: Path, out: Path, *, limit: int | None = None, seed: int = 0, **overrides) -> dict:
    task = TASKS["piqa"]
    settings = settings_of(task, overrides)
    return evaluate(SUBJECT, [(task, settings)], {"piqa": path}, out, limit=limit, seed=seed)["piqa"]


def test_a_run_keeps_every_item_with_its_settings(tmp_path: Path):
    path = write_piqa(tmp_path / "data", 7)
    result = run(path, tmp_path / "out")
    assert result["items"] == 7
    assert result["settings"] == {"rule": "characters", "delimiter": " ", "bos": True}
    (log,) = (tmp_path / "out").glob("piqa-*.jsonl")
    header, *lines = map(json.loads, log.read_text().splitlines())
    assert header["settings"]["bos"] is True
    assert header["model"] == {"name": "tiny"}
    assert {line["id"] for line in lines} == {f"validation/{n}" for n in range(7)}
    saved = json.loads((tmp_path / "out" / "results.json").read_text())
    assert saved["tasks"]["piqa"]["accuracy"] == result["accuracy"]
    first = next(line for line in lines if line["id"] == "validation/3")
    ids = byte_tokenizer().encode("Question: Do 3.\nAnswer:", bos=True)
    for text, logprob in zip((" it0", " not it"), first["logprobs"], strict=True):
        alone = naive_score(SUBJECT.model, ScoreRequest(tuple(ids), tuple(byte_tokenizer().encode(text))))
        assert logprob == pytest.approx(alone.logprob, abs=1e-5)


def test_what_was_answered_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_piqa(tmp_path / "data", 9)
    asked: list[int] = []
    answer = runner.records_of

    def counted(scorer, questions, *rest):
        asked.append(len(questions))
        return answer(scorer, questions, *rest)

    monkeypatch.setattr(runner, "records_of", counted)
    sampled = run(path, tmp_path / "out", limit=4, seed=1)
    assert sampled["settings"]["limit"] == 4
    whole = run(path, tmp_path / "out")
    assert asked == [4, 5]
    assert run(path, tmp_path / "out") == whole
    assert asked == [4, 5]
    assert whole == run(path, tmp_path / "other")


def test_a_log_that_was_torn_by_a_kill_goes_on(tmp_path: Path):
    path = write_piqa(tmp_path / "data", 6)
    whole = run(path, tmp_path / "out")
    (log,) = (tmp_path / "out").glob("piqa-*.jsonl")
    content = log.read_bytes()
    for end in (0, 10, content.index(b"\n") + 1, len(content) - 5):
        log.write_bytes(content[:end])
        assert run(path, tmp_path / "out") == whole
        assert len(log.read_bytes().splitlines()) == 7


def test_other_settings_and_other_data_have_their_own_log(tmp_path: Path):
    run(write_piqa(tmp_path / "data", 3), tmp_path / "out")
    run(write_piqa(tmp_path / "data", 3), tmp_path / "out", rule="none")
    run(write_piqa(tmp_path / "data", 4), tmp_path / "out")
    assert len(list((tmp_path / "out").glob("piqa-*.jsonl"))) == 3


def test_a_damaged_log_is_refused(tmp_path: Path):
    path = write_piqa(tmp_path / "data", 3)
    run(path, tmp_path / "out")
    (log,) = (tmp_path / "out").glob("piqa-*.jsonl")
    lines = log.read_text().splitlines()
    log.write_text("\n".join([lines[0], "{", *lines[1:]]) + "\n")
    with pytest.raises(RunError, match="damaged"):
        run(path, tmp_path / "out")
    log.write_text(lines[0].replace('"tiny"', '"other"') + "\n")
    with pytest.raises(RunError, match="another model"):
        run(path, tmp_path / "out")


def test_two_runs_do_not_write_into_one_folder(tmp_path: Path):
    path = write_piqa(tmp_path / "data", 3)
    (tmp_path / "out").mkdir()
    lock = RunLock(tmp_path / "out")
    lock.acquire()
    with pytest.raises(RunError, match="is being written by"):
        run(path, tmp_path / "out")
    lock.release()
    assert run(path, tmp_path / "out")["items"] == 3


def test_settings_a_task_does_not_have_are_refused():
    with pytest.raises(ConfigError, match="piqa has no setting answer_context"):
        settings_of(TASKS["piqa"], {"answer_context": "A:"})
    with pytest.raises(ConfigError, match=r"piqa\.rule is 'answer'"):
        settings_of(TASKS["piqa"], {"rule": "answer"})
    with pytest.raises(ConfigError, match=r"mmlu\.shots is '5'"):
        settings_of(TASKS["mmlu"], {"shots": "5"})
    assert settings_of(TASKS["boolq"], {"bos": False})["bos"] is False


def test_suites_and_tasks_are_chosen_by_name():
    assert [task.name for task in choose_tasks("piqa,race,piqa")] == ["piqa", "race_middle", "race_high"]
    with pytest.raises(UsageError, match="there is no benchmark or suite `squid`"):
        choose_tasks("piqa,squid")


def test_a_benchmark_in_no_package_is_named(tmp_path: Path, caplog):
    with pytest.raises(DataError, match=r"`race_high` is not in .*RACE is in no package") as caught:
        open_benchmarks([TASKS["race_high"]], tmp_path, cache=tmp_path, required=["race_high"])
    assert "race_high.jsonl" in str(caught.value.hint)
    write_piqa(tmp_path, 1)
    caplog.set_level("WARNING", "criadero")
    found = open_benchmarks([TASKS["race_high"], TASKS["piqa"]], tmp_path, cache=tmp_path)
    assert list(found) == ["piqa"]
    assert "race_high is left out" in caplog.text
    (tmp_path / "race_high.jsonl").write_text("")
    assert open_benchmarks([TASKS["race_high"]], tmp_path, cache=tmp_path)["race_high"].exists()


def test_a_line_that_is_no_item_is_named(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"id": "test/0", "item": {"a": "line \u2028 separators are text"}}\n{"id": 3}\n')
    with pytest.raises(DataError, match="line 2"):
        read_items(path)


def test_blanks_before_a_continuation_belong_to_it():
    encoder = Encoder(byte_tokenizer(), bos=None, most_tokens=96)
    assert encoder.pair("ab ", "c") == ScoreRequest((BOS, *b"ab"), tuple(b" c"))
    assert encoder.pair("", "c") == ScoreRequest((BOS,), tuple(b"c"))
    without = Encoder(byte_tokenizer(), bos=False, most_tokens=96)
    assert without.pair("ab", " c") == ScoreRequest(tuple(b"ab"), tuple(b" c"))


def test_a_text_without_context_needs_a_token_to_open_it():
    tokenizer = byte_tokenizer()
    tokenizer.bos_id = tokenizer.eos_id = None
    with pytest.raises(TokenizerError, match="no token to open it"):
        Encoder(tokenizer, bos=False, most_tokens=96).pair("", "c")


def test_examples_that_do_not_fit_are_dropped_and_then_the_beginning_is_cut():
    encoder = Encoder(byte_tokenizer(), bos=None, most_tokens=20)
    question = Question("0", (Candidate("asked:", " x", "x"),), 0, "", "open ", ("shot1 ", "shot2 "))
    fitted = encoder.question(question, None)
    assert bytes(fitted.candidates[0].context_ids[1:]) == b"open shot1 asked:"
    assert (fitted.shots, fitted.cut_tokens) == (1, 0)
    cut = encoder.question(Question("0", (Candidate("a" * 30 + ":", " x", "x"),), 0), None)
    assert cut.candidates[0].context_ids == (BOS, *b"a" * 17, *b":")
    assert cut.cut_tokens == 13
    alone = encoder.question(Question("0", (Candidate("", "b" * 25 + "c", "x"),), 0), None)
    assert alone.candidates == (ScoreRequest((BOS,), tuple(b"b" * 19 + b"c")),)
    assert alone.cut_tokens == 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and 400 questions on disk."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_model(folder / "model")
    write_piqa(folder / "data", 400)
    return folder


def command(folder: Path, out: Path, *more: str) -> list[str]:
    arguments = ["evaluate", str(folder / "model"), "--suite", "piqa", "--data", str(folder / "data")]
    return [sys.executable, "-m", "criadero", *arguments, "--out", str(out), "--json", *more]


def test_the_command_prints_one_object_with_accuracy_error_and_settings(folder: Path, tmp_path: Path):
    done = subprocess.run(
        command(folder, tmp_path / "out", "piqa.rule=none", "--limit", "30"),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    result = json.loads(done.stdout)["tasks"]["piqa"]
    assert result["items"] == 30
    assert 0 <= result["accuracy"] <= 1
    assert result["stderr"] > 0
    assert result["settings"] == {"rule": "none", "delimiter": " ", "bos": True, "limit": 30, "seed": 0}


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> dict:
    done = subprocess.run(command(folder, folder / "out"), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["tasks"]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 75), (signal.SIGTERM, 75)])
def test_a_run_that_is_stopped_goes_on_with_the_same_command(
    folder: Path, tmp_path: Path, undisturbed, sent, code
):
    out = tmp_path / "out"
    process = subprocess.Popen(
        command(folder, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    until = time.monotonic() + 60
    while not any(log.read_bytes().count(b"\n") > 3 for log in out.glob("piqa-*.jsonl")):
        assert time.monotonic() < until
        assert process.poll() is None
    process.send_signal(sent)
    process.communicate()
    (log,) = out.glob("piqa-*.jsonl")
    before = log.read_bytes().rpartition(b"\n")[0]
    if before.count(b"\n") < 400:  # else it was quicker than the signal
        assert process.returncode == code
    done = subprocess.run(command(folder, out), capture_output=True, text=True, check=True)
    assert log.read_bytes().startswith(before)
    assert json.loads(done.stdout)["tasks"] == undisturbed
