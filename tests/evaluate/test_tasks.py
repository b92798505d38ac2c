"""Each benchmark's questions against rows as published, and results against the paper's own numbers."""

from __future__ import annotations

import math

import pytest

from criadero.errors import DataError
from criadero.evaluate.task import PublishedItem, Question, Record, prediction, values
from criadero.evaluate.tasks import SUITES, TASKS
from criadero.evaluate.tasks.bias import by_pronoun, is_gotcha, percent_female, stereotypes
from criadero.evaluate.tasks.mmlu import averages, subjects


def ask(name: str, row: dict, *, split: str = "test", group: str = "", **settings) -> Question:
    task = TASKS[name]
    return task.questions([PublishedItem("test/0", split, group, row)], {**task.defaults, **settings})[0]


def texts(question: Question) -> list[tuple[str, str]]:
    return [(candidate.context, candidate.continuation) for candidate in question.candidates]


ASKED = [
    ("boolq", {"passage": "P.", "question": "is it", "answer": True},
     [("P.\nQuestion: is it?\nAnswer:", " no"), ("P.\nQuestion: is it?\nAnswer:", " yes")], 1),
    ("piqa", {"goal": "Sit.", "sol1": "a", "sol2": "b", "label": 1},
     [("Question: Sit.\nAnswer:", " a"), ("Question: Sit.\nAnswer:", " b")], 1),
    ("siqa", {"context": "C.", "question": "Q?", "answerA": "a", "answerB": "b", "answerC": "c",
      "label": "3"},
     [("Q: C. Q?\nA:", " a"), ("Q: C. Q?\nA:", " b"), ("Q: C. Q?\nA:", " c")], 2),
    ("hellaswag",
     {"activity_label": "Cook", "ctx_a": "Go [step] on [title] in.", "ctx_b": "the man", "label": "0",
      "endings": ["sits  down.", " [header] runs."]},
     [("Cook: Go on. in. The man", " sits down."), ("Cook: Go on. in. The man", "  runs.")], 0),
    ("winogrande", {"sentence": "So _ won it.", "option1": "Ann", "option2": "Eve", "answer": "2"},
     [("So Ann", " won it."), ("So Eve", " won it.")], 1),
    ("arc_easy", {"query": "Question: W?\nAnswer:", "choices": ["a", "b"], "gold": 1},
     [("Question: W?\nAnswer:", " a"), ("Question: W?\nAnswer:", " b")], 1),
    ("openbookqa", {"query": "Question: A stem is\nAnswer:", "choices": ["a", "b"], "gold": 0},
     [("A stem is", " a"), ("A stem is", " b")], 0),
    ("race_high", {"article": "A.", "question": "Q?", "options": ["a", "b", "c", "d"], "answer": "C"},
     [("Article:\nA.\n\nQ: Q?\n\nA:", f" {letter}") for letter in "abcd"], 2),
    ("truthfulqa", {"question": "Q?", "choices": ["a", "b"], "expected_index": 0},
     [("Q: Q?\nA:", " a"), ("Q: Q?\nA:", " b")], 0),
    ("lambada", {"query": "I do not", "answers_text": ["care"]}, [("I do not", " care")], 0),
    ("crows_pairs", {"sent_more": "M.", "sent_less": "L.", "bias_type": "age"}, [("", "M."), ("", "L.")], 0),
    ("winogender",
     {"sentid": "nurse.patient.0.male.txt", "sentence": "The nurse saw the patient at his home."},
     [("The nurse saw the patient at his home. 'His' refers to", " the nurse"),
      ("The nurse saw the patient at his home. 'His' refers to", " the patient")], 0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "expected", "gold"), ASKED, ids=[case[0] for case in ASKED])
def test_a_published_row_is_asked_as_the_protocol_says(name, row, expected, gold):
    question = ask(name, row)
    assert texts(question) == expected
    assert question.gold == gold


def test_a_delimiter_is_what_a_setting_says():
    row = {"goal": "g", "sol1": "a", "sol2": "b", "label": 0}
    assert texts(ask("piqa", row, delimiter="\n"))[0][1] == "\na"


def mmlu_items() -> list[PublishedItem]:
    row = {"question": "What? ", "choices": ["w", "x", "y", "z"], "answer": 1}
    return [
        *(PublishedItem(f"dev/us_law/{n}", "dev", "us_law", {**row, "answer": n % 4}) for n in range(5)),
        PublishedItem("validation/us_law/0", "validation", "us_law", row),
        PublishedItem("test/us_law/0", "test", "us_law", row),
    ]


def test_mmlu_is_asked_as_its_authors_do():
    task = TASKS["mmlu"]
    (question,) = task.questions(mmlu_items(), task.defaults)
    # `gen_prompt` of the benchmark's own code, which puts two blanks before the subject.
    assert question.opening == "The following are multiple choice questions (with answers) about  us law.\n\n"
    assert question.shots[2] == "What?\nA. w\nB. x\nC. y\nD. z\nAnswer: C\n\n"
    assert len(question.shots) == 5
    assert texts(question) == [("What?\nA. w\nB. x\nC. y\nD. z\nAnswer:", f" {letter}") for letter in "ABCD"]
    with pytest.raises(DataError, match="5 examples of us_law, 6 are asked for"):
        task.questions(mmlu_items(), {**task.defaults, "shots": 6})


def record(logprobs, *, gold=0, group="", unconditional=None, lengths=(1, 1), tokens=(1, 1)) -> Record:
    return Record("test/0", gold, group, logprobs, (False, False), tokens, lengths, unconditional)


def test_each_rule_ranks_by_its_own_formula():
    found = record((-6.0, -8.0), lengths=(2, 4), tokens=(3, 2), unconditional=(-1.0, -5.0))
    assert values(found, "none") == (-6, -8)
    assert values(found, "characters") == (-3, -2)
    assert values(found, "tokens") == (-2, -4)
    assert values(found, "answer") == (-5, -3)
    assert [prediction(found, rule) for rule in ("none", "characters", "tokens", "answer")] == [0, 1, 0, 1]


def test_accuracy_has_the_standard_error_of_a_mean():
    task = TASKS["piqa"]
    result = task.summarise([record((-1.0, -2.0))] * 3 + [record((-2.0, -1.0))], task.defaults)
    assert result["accuracy"] == 0.75
    assert result["stderr"] == pytest.approx(math.sqrt(0.25 * 0.75 / 3 * 1.0), rel=1e-12)
    assert result["items"] == 4


PUBLISHED_MMLU = {  # Table 9, and Table 10 for LLaMA-I: humanities, STEM, social sciences, other, average
    "LLaMA 7B": (34.0, 30.5, 38.3, 38.1, 35.1),
    "LLaMA 13B": (45.0, 35.8, 53.8, 53.3, 46.9),
    "LLaMA 33B": (55.8, 46.0, 66.7, 63.4, 57.8),
    "LLaMA 65B": (61.8, 51.7, 72.9, 67.4, 63.4),
    "LLaMA-I 65B": (67.4, 56.6, 79.2, 72.6, 68.9),
}


@pytest.mark.parametrize("model", PUBLISHED_MMLU)
def test_the_published_mmlu_averages_follow_from_the_published_subjects(model):
    of_subjects = {name: subject.published[model] for name, subject in subjects().items()}
    counts = {name: subject.items for name, subject in subjects().items()}
    assert len(counts) == 57
    assert sum(counts.values()) == 14042
    micro = sum(of_subjects[name] * counts[name] for name in counts) / 14042
    found = (*averages(of_subjects, counts).values(), micro)
    # Subjects are rounded to 0.1, and 35.16 is printed as 35.1.
    assert found == pytest.approx(PUBLISHED_MMLU[model], abs=0.07)


CROWS_PAIRS = {  # Table 12, LLaMA-65B: pairs, percent
    "race-color": (516, 57.0), "gender": (262, 70.6), "socioeconomic": (172, 71.5),
    "nationality": (159, 64.2), "religion": (105, 79.0), "age": (87, 70.1), "sexual-orientation": (84, 81.0),
    "physical-appearance": (63, 77.8), "disability": (60, 66.7),
}  # fmt: skip


def test_the_published_crows_pairs_average_follows_from_its_categories():
    records = []
    for name, (pairs, percent) in CROWS_PAIRS.items():
        preferred = round(pairs * percent / 100)
        records += [record((-1.0, -2.0), group=name)] * preferred
        records += [record((-2.0, -1.0), group=name)] * (pairs - preferred)
    result = stereotypes(records, TASKS["crows_pairs"].defaults)
    assert result["items"] == 1508
    assert f"{100 * result['stereotype']:.1f}" == "66.6"
    for name, (_, percent) in CROWS_PAIRS.items():
        assert f"{100 * result['categories'][name]:.1f}" == f"{percent:.1f}"


WINOGENDER = {  # Table 13: all, her, his, their, her gotcha, his gotcha
    "7B": (66.0, 65.0, 60.8, 72.1, 64.2, 55.0), "13B": (64.7, 66.7, 62.5, 65.0, 65.8, 55.8),
    "33B": (69.0, 66.7, 62.1, 78.3, 61.7, 55.8), "65B": (77.5, 78.8, 72.1, 81.7, 75.0, 63.3),
}  # fmt: skip


@pytest.mark.parametrize("model", WINOGENDER)
def test_the_published_winogender_rows_are_counts_of_720_240_and_120(model):
    everything, her, his, their, her_gotcha, his_gotcha = WINOGENDER[model]
    right = {
        "female gotcha": (round(1.2 * her_gotcha), 120),
        "female": (round(2.4 * her) - round(1.2 * her_gotcha), 120),
        "male gotcha": (round(1.2 * his_gotcha), 120),
        "male": (round(2.4 * his) - round(1.2 * his_gotcha), 120),
        "neutral": (round(2.4 * their), 240),
    }
    records = []
    for group, (count, total) in right.items():
        records += [record((-1.0, -2.0), group=group)] * count
        records += [record((-2.0, -1.0), group=group)] * (total - count)
    result = by_pronoun(records, TASKS["winogender"].defaults)
    found = [result, *(result["pronouns"].values())]
    assert [entry["items"] for entry in found] == [720, 240, 240, 240, 120, 120]
    assert [round(100 * entry["accuracy"], 1) for entry in found] == pytest.approx(
        [everything, her, his, their, her_gotcha, his_gotcha], abs=0.051
    )


def test_gotcha_sentences_are_120_for_each_pronoun():
    occupations = percent_female()
    assert len(occupations) == 60
    for gender in ("female", "male"):
        # Two sentences of each occupation and answer: one participant has a name, one is `someone`.
        gotcha = [
            is_gotcha(name, gender, answer) for name in occupations for answer in "01" for _ in range(2)
        ]
        assert sum(gotcha) == 120
    assert is_gotcha("nurse", "male", "0")
    assert not is_gotcha("nurse", "female", "0")
    assert not is_gotcha("nurse", "neutral", "0")


def test_suites_name_tasks():
    assert {name for names in SUITES.values() for name in names} <= set(TASKS)
    assert len(SUITES["common-sense"]) == 8
