"""The scorer against one request at a time, and how few tokens it forwards."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from criadero.errors import DataError, NumericsError
from criadero.evaluate.scoring import Scorer, ScoreRequest
from generate.tiny_model import tiny_model
from naive_scorer import naive_score

MODEL = tiny_model()
IDS = st.lists(st.integers(0, 2), min_size=1, max_size=12).map(tuple)
SIZES = st.fixed_dictionaries(
    {"row_tokens": st.integers(1, 20), "batch_tokens": st.integers(1, 50), "least_head": st.integers(1, 6)}
)


def check(scorer: Scorer, requests: list[ScoreRequest]) -> None:
    found = list(scorer.score(requests))
    assert sorted(number for number, _ in found) == list(range(len(requests)))
    for number, score in found:
        alone = naive_score(scorer.model, requests[number])
        assert score.logprobs == pytest.approx(alone.logprobs, abs=1e-5)
        assert score.greedy == alone.greedy


@given(st.lists(st.tuples(IDS, IDS), max_size=12), SIZES)
@settings(max_examples=60, deadline=None)
def test_scores_are_those_of_one_request_at_a_time(pairs, sizes):
    check(Scorer(MODEL, **sizes), [ScoreRequest(context, continuation) for context, continuation in pairs])


def few_shot_requests() -> list[ScoreRequest]:
    """Two subjects with a head of 40 tokens each, 9 questions each, 4 choices of 1 to 4 tokens."""
    draw = random.Random(3)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(261) for _ in range(count))

    requests = []
    for _ in range(2):
        head = ids(40)
        for _ in range(9):
            context = head + ids(12)
            requests += [ScoreRequest(context, ids(length)) for length in (1, 2, 3, 4)]
    return requests


def test_what_requests_share_is_forwarded_once():
    requests = few_shot_requests()
    scorer = Scorer(MODEL, row_tokens=32, batch_tokens=128)
    check(scorer, requests)
    # Of a question's choices all but the last token, 0 + 1 + 2 + 3; at most one token of a head again.
    assert 2 * 40 + 18 * (12 + 6) <= scorer.counts.forwarded <= 2 * 40 + 18 * (12 + 6 + 1)
    assert scorer.counts.asked == sum(len(r.context_ids) + len(r.continuation_ids) - 1 for r in requests)


def test_scores_do_not_depend_on_their_order():
    requests = few_shot_requests()
    scores = dict(Scorer(MODEL).score(requests))
    backwards = dict(Scorer(MODEL).score(requests[::-1]))
    assert [scores[i] for i in range(len(requests))] == [backwards[i] for i in reversed(range(len(requests)))]


def test_logits_are_made_a_part_at_a_time(monkeypatch):
    monkeypatch.setattr("criadero.evaluate.scoring._LOGITS_AT_ONCE", 3 * 261)
    check(Scorer(MODEL), few_shot_requests()[:9])


def test_a_request_as_long_as_the_context_is_scored():
    full = ScoreRequest(tuple(range(90)), tuple(range(7)))
    check(Scorer(MODEL), [full])
    with pytest.raises(DataError, match="98 tokens"):
        list(Scorer(MODEL).score([ScoreRequest(tuple(range(90)), tuple(range(8)))]))


@pytest.mark.parametrize(
    "request_",
    [ScoreRequest((), (1,)), ScoreRequest((1,), ()), ScoreRequest((1,), (261,)), ScoreRequest((-1,), (1,))],
)
def test_what_cannot_be_scored_is_refused(request_):
    with pytest.raises(DataError):
        list(Scorer(MODEL).score([request_]))


def test_a_broken_model_is_an_error():
    model = tiny_model()
    with torch.no_grad():
        model.norm.weight[0] = float("nan")
    with pytest.raises(NumericsError):
        list(Scorer(model).score([ScoreRequest((1,), (2,))]))
