"""Common-sense reasoning: a short question and some answers (LLaMA 3.1, Table 3), and TruthfulQA's choices.

All are zero-shot. The paper gives no prompts; these are those of GPT-3 and of lm-eval, which it cites. It
ranks by log-probability per character, BoolQ and OpenBookQA by P(answer | context) / P(answer | "Answer:").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from criadero.evaluate.task import Candidate, PublishedItem, Question, Settings, Task

Row = Mapping[str, Any]
Asked = tuple[str, Sequence[str], int]  # context, choices, number of the right one


def boolq(row: Row) -> Asked:
    """Clark et al. 2019: a passage and a yes/no question."""
    return f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:", ("no", "yes"), int(row["answer"])


def piqa(row: Row) -> Asked:
    """Bisk et al. 2020: two ways to reach a goal."""
    return f"Question: {row['goal']}\nAnswer:", (row["sol1"], row["sol2"]), int(row["label"])


def siqa(row: Row) -> Asked:
    """Sap et al. 2019: a situation, a question about it and three answers."""
    choices = (row["answerA"], row["answerB"], row["answerC"])
    return f"Q: {row['context']} {row['question']}\nA:", choices, int(row["label"]) - 1


def hellaswag(row: Row) -> Asked:
    """Zellers et al. 2019: four endings of a description, cleaned of what WikiHow left in them."""
    context = _clean(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}")
    return context, [_clean(ending) for ending in row["endings"]], int(row["label"])


def _clean(text: str) -> str:
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def arc(row: Row) -> Asked:
    """Clark et al. 2018: science questions from school; published with `Question:` and `Answer:`."""
    return row["query"], row["choices"], row["gold"]


def openbookqa(row: Row) -> Asked:
    """Mihaylov et al. 2018: the bare stem of a question that its answer completes."""
    return row["query"].removeprefix("Question: ").removesuffix("\nAnswer:"), row["choices"], row["gold"]


def truthfulqa(row: Row) -> Asked:
    """Lin et al. 2021, MC1: one true answer among false ones."""
    return f"Q: {row['question']}\nA:", row["choices"], row["expected_index"]


def winogrande(items: Sequence[PublishedItem], settings: Settings) -> list[Question]:
    """Sakaguchi et al. 2019: how likely the rest of a sentence is after either name (Brown et al. 2020)."""
    questions = []
    for item in items:
        before, _, after = item.row["sentence"].partition("_")
        rest = settings["delimiter"] + after.strip()
        options = (item.row["option1"], item.row["option2"])
        candidates = tuple(Candidate(before + option, rest, after.strip()) for option in options)
        questions.append(Question(item.id, candidates, int(item.row["answer"]) - 1))
    return questions


def asking(
    ask: Callable[[Row], Asked],
) -> Callable[[Sequence[PublishedItem], Settings], list[Question]]:
    """Return what makes questions of items, one after the other."""

    def questions(items: Sequence[PublishedItem], settings: Settings) -> list[Question]:
        made = []
        for item in items:
            context, choices, gold = ask(item.row)
            candidates = (Candidate(context, settings["delimiter"] + choice, choice) for choice in choices)
            made.append(Question(item.id, tuple(candidates), gold))
        return made

    return questions


_BY_CHARACTERS = {"rule": "characters", "delimiter": " ", "bos": None}
_BY_ANSWER = {"rule": "answer", "answer_context": "Answer:", "delimiter": " ", "bos": None}

TASKS = (
    Task("boolq", "boolq", asking(boolq), _BY_ANSWER),
    Task("piqa", "piqa", asking(piqa), _BY_CHARACTERS),
    Task("siqa", "siqa", asking(siqa), _BY_CHARACTERS),
    Task("hellaswag", "hellaswag", asking(hellaswag), _BY_CHARACTERS),
    Task("winogrande", "winogrande", winogrande, {**_BY_CHARACTERS, "rule": "none"}),
    Task("arc_easy", "arc_easy", asking(arc), _BY_CHARACTERS),
    Task("arc_challenge", "arc_challenge", asking(arc), _BY_CHARACTERS),
    Task("openbookqa", "openbookqa", asking(openbookqa), _BY_ANSWER),
    Task("truthfulqa", "truthfulqa_mc1", asking(truthfulqa), {**_BY_CHARACTERS, "rule": "none"}),
)
