"""What a benchmark asks and how its answers count: the shape of a task that is ranked by likelihood.

A `Task` turns the published items of a benchmark into `Question`s; each has candidates of which the model
is to find one the likeliest. What is kept of a question is a `Record`; `prediction` reads it by one of the
`RULES`, so that every reading of the paper comes out of the same forward passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Rule: TypeAlias = Literal["none", "characters", "tokens", "answer"]
RULES: tuple[Rule, ...] = ("none", "characters", "tokens", "answer")
"""The log-probability of a candidate as it is; divided by its characters (LLaMA 3); by its tokens, which is
ranking by perplexity; less that after the answer context alone (LLaMA 3.1, from Brown et al. 2020)."""

Settings: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class PublishedItem:
    """One line of a benchmark's file: `split`, `group` (MMLU's subject, or empty), and what was published."""

    id: str
    split: str
    group: str
    row: Mapping[str, Any]


@dataclass(frozen=True)
class Candidate:
    """A text and what it follows; `choice` is the part whose characters count."""

    context: str
    continuation: str
    choice: str


@dataclass(frozen=True)
class Question:
    """Candidates, of which `gold` is the right one.

    Attributes:
        id: of the item.
        candidates: at least one.
        gold: number of the candidate that counts.
        group: what results are also shown by.
        opening: the text before everything else.
        shots: worked examples between `opening` and the context; the last ones go if there is no room.
    """

    id: str
    candidates: tuple[Candidate, ...]
    gold: int
    group: str = ""
    opening: str = ""
    shots: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record:
    """What is kept of an answered question, one value for each candidate.

    Attributes:
        id, gold, group: of the question.
        logprobs: natural logs of the candidates' probabilities.
        greedy: whether a candidate is what greedy decoding writes.
        tokens, characters: how long the candidates are.
        unconditional: log-probabilities after the answer context, None where no rule asks for them.
        shots: how many worked examples there was room for.
        cut_tokens: how many tokens at the beginning there was no room for.
    """

    id: str
    gold: int
    group: str
    logprobs: tuple[float, ...]
    greedy: tuple[bool, ...]
    tokens: tuple[int, ...]
    characters: tuple[int, ...]
    unconditional: tuple[float, ...] | None = None
    shots: int = 0
    cut_tokens: int = 0


def values(record: Record, rule: Rule) -> tuple[float, ...]:
    """Return what the candidates are ranked by."""
    if rule == "characters":
        return tuple(p / max(n, 1) for p, n in zip(record.logprobs, record.characters, strict=True))
    if rule == "tokens":
        return tuple(p / n for p, n in zip(record.logprobs, record.tokens, strict=True))
    if rule == "answer":
        assert record.unconditional is not None
        return tuple(p - q for p, q in zip(record.logprobs, record.unconditional, strict=True))
    return record.logprobs


def prediction(record: Record, rule: Rule) -> int:
    """Return the number of the likeliest candidate, the first of equals."""
    ranked = values(record, rule)
    return ranked.index(max(ranked))


def is_right(record: Record, rule: Rule) -> bool:
    """Tell whether the likeliest candidate is the right one."""
    return prediction(record, rule) == record.gold


def share(flags: Sequence[bool]) -> dict[str, float]:
    """Return the mean of flags with its standard error, that of a sample."""
    count, mean = len(flags), sum(flags) / len(flags)
    error = math.sqrt(mean * (1 - mean) / (count - 1)) if count > 1 else math.nan
    return {"accuracy": mean, "stderr": error, "items": count}


def accuracy(records: Sequence[Record], settings: Settings) -> dict[str, Any]:
    """Return accuracy by the task's rule, and by every other rule that these records can be read by."""
    possible = [rule for rule in RULES if rule != "answer" or records[0].unconditional is not None]
    readings = {rule: share([is_right(r, rule) for r in records])["accuracy"] for rule in possible}
    return {**share([is_right(record, settings["rule"]) for record in records]), "readings": readings}


@dataclass(frozen=True)
class Task:
    """A benchmark as the paper asks it.

    Attributes:
        name: in results.
        benchmark: the file that holds its items.
        questions: from all items of that file and the settings.
        defaults: the settings it has, with the paper's reading of each.
        summarise: from the records to what is reported.
    """

    name: str
    benchmark: str
    questions: Callable[[Sequence[PublishedItem], Settings], list[Question]]
    defaults: Settings
    summarise: Callable[[Sequence[Record], Settings], dict[str, Any]] = field(default=accuracy)
