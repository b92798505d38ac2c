"""A long passage before the question: RACE (LLaMA 3.3, Table 6), and LAMBADA's last words.

RACE follows Brown et al. 2020: article, `Q:`, `A:`, ranked by P(answer | context) / P(answer | "A:").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from criadero.evaluate.task import Candidate, PublishedItem, Question, Record, Settings, Task, share
from criadero.evaluate.tasks.choices import Asked, Row, asking


def race(row: Row) -> Asked:
    """Lai et al. 2017: questions about an article, with four answers."""
    context = f"Article:\n{row['article']}\n\nQ: {row['question']}\n\nA:"
    return context, row["options"], "ABCD".index(row["answer"])


def lambada(items: Sequence[PublishedItem], settings: Settings) -> list[Question]:
    """Paperno et al. 2016: the last word of a passage."""
    questions = []
    for item in items:
        word = item.row["answers_text"][0]
        last = Candidate(item.row["query"], settings["delimiter"] + word, word)
        questions.append(Question(item.id, (last,), 0))
    return questions


def last_words(records: Sequence[Record], _settings: Settings) -> dict[str, Any]:
    """Return how often greedy decoding writes the word, and the perplexity of words."""
    nll = -math.fsum(record.logprobs[0] for record in records) / len(records)
    return {**share([record.greedy[0] for record in records]), "perplexity": math.exp(min(nll, 700))}


_RACE = {"rule": "answer", "answer_context": "A:", "delimiter": " ", "bos": None}

TASKS = (
    Task("race_middle", "race_middle", asking(race), _RACE),
    Task("race_high", "race_high", asking(race), _RACE),
    Task("lambada", "lambada", lambada, {"delimiter": " ", "bos": None}, last_words),
)
