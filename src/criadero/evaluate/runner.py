"""Evaluating a model on tasks: every item's result is kept as it comes, and a killed run goes on.

Entry point: `evaluate`. OUT gets a log for each task and its settings, and `results.json`.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from criadero.corpus.benchmark_sets import PAPER_TABLES
from criadero.errors import ConfigError, UsageError
from criadero.evaluate.encoding import Encoded, Encoder
from criadero.evaluate.items import read_items
from criadero.evaluate.log import ItemLog
from criadero.evaluate.scoring import Score, Scorer
from criadero.evaluate.task import RULES, Question, Record, Settings, Task
from criadero.evaluate.tasks import SUITES, TASKS
from criadero.files import read_json, sha256_file, write_json
from criadero.model.transformer import Transformer
from criadero.notices import say_once
from criadero.runs import RunLock
from criadero.tokenizer.tokenizer import Tokenizer

RESULTS = "results.json"
_QUESTIONS_AT_ONCE = 4096  # their requests are in memory together

OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Subject:
    """The model that is evaluated.

    Attributes:
        model, tokenizer: as loaded.
        identity: what tells it from any other; JSON values, kept with the results.
    """

    model: Transformer
    tokenizer: Tokenizer
    identity: Mapping[str, Any]


def choose_tasks(suite: str) -> list[Task]:
    """Return the tasks of a list of names of tasks and suites, separated by commas.

    Raises:
        UsageError: an unknown name.
    """
    names: dict[str, None] = {}
    for name in (part.strip() for part in suite.split(",")):
        if name not in SUITES and name not in TASKS:
            raise UsageError(
                f"there is no benchmark or suite `{name}`", hint=f"suites are {', '.join(SUITES)}; tasks "
                f"{', '.join(TASKS)}"
            )  # fmt: skip
        names.update(dict.fromkeys(SUITES.get(name, (name,))))
    return [TASKS[name] for name in names]


def settings_of(task: Task, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a task's settings.

    Raises:
        ConfigError: one that the task does not have, or a rule there is not.
    """
    unknown = set(overrides) - set(task.defaults)
    if unknown:
        raise ConfigError(
            f"{task.name} has no setting {', '.join(sorted(unknown))}",
            hint=f"it has {', '.join(task.defaults)}",
        )
    settings = {**task.defaults, **overrides}
    known = [rule for rule in RULES if rule != "answer" or "answer_context" in settings]
    if "rule" in settings and settings["rule"] not in known:
        raise ConfigError(f"{task.name}.rule is {settings['rule']!r}", hint=f"rules are {', '.join(known)}")
    for name, value in settings.items():
        if name != "bos" and type(value) is not type(task.defaults[name]):
            raise ConfigError(f"{task.name}.{name} is {value!r}, such as {task.defaults[name]!r} expected")
    return settings


def evaluate(
    subject: Subject,
    tasks: Sequence[tuple[Task, Settings]],
    files: Mapping[str, Path],
    out: Path,
    *,
    limit: int | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Evaluate a model on tasks and return the results by task.

    Args:
        tasks: with all their settings.
        files: the items of each task, by its name.
        out: where logs and results are kept; results of before are not computed again.
        limit: most questions of a task, drawn with `seed`; None for all.
        on_progress: called with a task's name, the questions done and all there are.

    Raises:
        DataError: items that cannot be read.
        RunError: a log in `out` is damaged, or another process writes there.
        NumericsError: the model gives values that are not numbers.
    """
    out.mkdir(parents=True, exist_ok=True)
    results = {}
    with RunLock(out):
        for task, wanted in tasks:
            sha256 = sha256_file(files[task.name])
            questions = _drawn(
                task.questions(read_items(files[task.name]), wanted), task, limit=limit, seed=seed
            )
            encoder = Encoder(
                subject.tokenizer, bos=wanted["bos"], most_tokens=subject.model.config.max_seq_len
            )
            settings = {**wanted, "bos": encoder.bos}
            about = {
                "task": task.name,
                "settings": settings,
                "model": subject.identity,
                "data_sha256": sha256,
            }
            log = ItemLog(out / f"{task.name}-{_short_hash(about)}.jsonl", about)
            _answer(subject, task, questions, encoder, log, settings, on_progress)
            records = [log.records[question.id] for question in questions]
            results[task.name] = _result(task, records, settings, limit=limit, seed=seed)
            _save(out, subject, task.name, results[task.name])
    return results


def _drawn(questions: list[Question], task: Task, *, limit: int | None, seed: int) -> list[Question]:
    """Return at most `limit` questions, the same ones for a seed, in published order."""
    if limit is None or limit >= len(questions):
        return questions
    chosen = random.Random(f"{seed}/{task.name}").sample(range(len(questions)), limit)
    return [questions[i] for i in sorted(chosen)]


def _answer(
    subject: Subject,
    task: Task,
    questions: Sequence[Question],
    encoder: Encoder,
    log: ItemLog,
    settings: Settings,
    on_progress: OnProgress | None,
) -> None:
    """Add the records that a log does not have yet."""
    left = [question for question in questions if question.id not in log.records]
    done = len(questions) - len(left)
    scorer = Scorer(subject.model)
    for start in range(0, len(left), _QUESTIONS_AT_ONCE):
        for record in records_of(scorer, left[start : start + _QUESTIONS_AT_ONCE], encoder, settings):
            log.add(record)
            done += 1
            if on_progress is not None:
                on_progress(task.name, done, len(questions))


def records_of(
    scorer: Scorer, questions: Sequence[Question], encoder: Encoder, settings: Settings
) -> Iterator[Record]:
    """Yield the records of questions, each when its last score is there; the longest first."""
    encoded = [encoder.question(question, settings.get("answer_context")) for question in questions]
    owners = [(number, place) for number, e in enumerate(encoded) for place in range(len(e.requests))]
    scores: list[dict[int, Score]] = [{} for _ in questions]
    for index, score in scorer.score([request for e in encoded for request in e.requests]):
        number, place = owners[index]
        scores[number][place] = score
        if len(scores[number]) == len(encoded[number].requests):
            yield _record(questions[number], encoded[number], scores[number])


def _record(question: Question, encoded: Encoded, scores: Mapping[int, Score]) -> Record:
    count = len(question.candidates)
    found = [scores[place] for place in range(len(scores))]
    return Record(
        question.id,
        question.gold,
        question.group,
        tuple(score.logprob for score in found[:count]),
        tuple(score.greedy for score in found[:count]),
        tuple(len(score.logprobs) for score in found[:count]),
        tuple(len(candidate.choice) for candidate in question.candidates),
        tuple(score.logprob for score in found[count:]) or None,
        encoded.shots,
        encoded.cut_tokens,
    )


def _result(
    task: Task, records: Sequence[Record], settings: Settings, *, limit: int | None, seed: int
) -> dict[str, Any]:
    result = {
        **task.summarise(records, settings),
        "settings": dict(settings),
        "table": PAPER_TABLES.get(task.name, ""),
    }
    if limit is not None:
        result["settings"] |= {"limit": limit, "seed": seed}
    cut = sum(record.cut_tokens > 0 for record in records)
    fewer = sum(record.shots < settings.get("shots", 0) for record in records)
    if cut:
        say_once(
            f"{task.name}: the beginning of {cut:,} questions was cut off, they are longer than the context"
        )
    return {**result, "questions_cut": cut, "questions_with_fewer_shots": fewer}


def _save(out: Path, subject: Subject, name: str, result: Mapping[str, Any]) -> None:
    """Put a task's result beside those of before."""
    path = out / RESULTS
    tasks = read_json(path)["tasks"] if path.exists() else {}
    write_json(path, {"model": dict(subject.identity), "tasks": {**tasks, name: dict(result)}})


def _short_hash(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]


def identity_of(path: Path) -> dict[str, Any]:
    """Return what tells a model on disk from another: its name, and size and time of its files."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    stamps = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return {"name": path.resolve().name, "files": hashlib.sha256(json.dumps(stamps).encode()).hexdigest()}
