"""MMLU, 5-shot (LLaMA 3.7, Tables 9 and 16): the prompt of Hendrycks et al. 2021, the likeliest letter.

The average is over questions, not over subjects, and Anatomy counts as Other: only so do the published
categories follow from the published subjects.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from criadero.errors import DataError
from criadero.evaluate import published
from criadero.evaluate.task import (
    Candidate,
    PublishedItem,
    Question,
    Record,
    Settings,
    Task,
    accuracy,
    is_right,
)

CATEGORIES = ("humanities", "stem", "social_sciences", "other")
_LETTERS = "ABCD"


@dataclass(frozen=True)
class Subject:
    """One of the 57, with the number of its test questions and the accuracies of Table 16, percent."""

    name: str
    category: str
    items: int
    published: Mapping[str, float]


@cache
def subjects() -> Mapping[str, Subject]:
    """Return the subjects by name (LLaMA Table 16; categories as the benchmark's authors sort them)."""
    return {row["subject"]: _subject(row) for row in published.rows("mmlu_subjects")}


def _subject(row: Mapping[str, str]) -> Subject:
    models = list(row)[3:]
    return Subject(
        row["subject"], row["category"], int(row["items"]), {name: float(row[name]) for name in models}
    )


def questions(items: Sequence[PublishedItem], settings: Settings) -> list[Question]:
    """Return the test questions, each with the first examples of its subject's development set."""
    examples = defaultdict(list)
    for item in items:
        if item.split == "dev":
            examples[item.group].append(_asked(item.row) + f" {_LETTERS[item.row['answer']]}\n\n")
    made = []
    for item in items:
        if item.split != "test":
            continue
        shots = tuple(examples[item.group][: settings["shots"]])
        if len(shots) < settings["shots"]:
            raise DataError(
                f"mmlu has {len(shots)} examples of {item.group}, {settings['shots']} are asked for"
            )
        asked = _asked(item.row)
        letters = tuple(Candidate(asked, settings["delimiter"] + letter, letter) for letter in _LETTERS)
        opening = _opening(item.group, settings["header"])
        made.append(Question(item.id, letters, item.row["answer"], item.group, opening, shots))
    return made


def _opening(subject: str, header: str) -> str:
    # Hendrycks et al. put a blank before each word of the subject, so there are two before the first.
    blank = {"hendrycks": " ", "lm-eval": ""}[header]
    words = subject.replace("_", " ")
    return f"The following are multiple choice questions (with answers) about {blank}{words}.\n\n"


def _asked(row: Mapping[str, Any]) -> str:
    choices = "".join(f"\n{letter}. {text}" for letter, text in zip(_LETTERS, row["choices"], strict=True))
    return f"{row['question'].strip()}{choices}\nAnswer:"


def by_category(records: Sequence[Record], settings: Settings) -> dict[str, Any]:
    """Return accuracy over questions, of categories and subjects too; `macro` is the mean of subjects."""
    right = defaultdict(list)
    for record in records:
        right[record.group].append(is_right(record, settings["rule"]))
    of_subjects = {name: sum(flags) / len(flags) for name, flags in sorted(right.items())}
    counts = {name: len(flags) for name, flags in right.items()}
    return {
        **accuracy(records, settings),
        "macro": sum(of_subjects.values()) / len(of_subjects),
        "categories": averages(of_subjects, counts),
        "subjects": of_subjects,
    }


def averages(of_subjects: Mapping[str, float], counts: Mapping[str, int]) -> dict[str, float]:
    """Return the mean over questions of each category that has any."""
    found = {}
    for category in CATEGORIES:
        names = [name for name in of_subjects if subjects()[name].category == category]
        if names:
            found[category] = sum(of_subjects[n] * counts[n] for n in names) / sum(counts[n] for n in names)
    return found


TASK = Task(
    "mmlu", "mmlu", questions,
    {"rule": "none", "shots": 5, "header": "hendrycks", "delimiter": " ", "bos": None}, by_category,
)  # fmt: skip
