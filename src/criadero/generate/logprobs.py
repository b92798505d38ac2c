"""Choosing the next tokens of a batch, with their log-probabilities; and those of a prompt's own tokens.

Entry points: `choose` and `score_prompt`. Log-probabilities are the model's own, before bias, penalties,
temperature and filters. Letters: B batch, T sequence, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from criadero.generate.request import Request, TopLogprobs
from criadero.generate.sampling import penalised, sample_rows


class Chooser(Protocol):
    """What `choose` needs to know of a sequence."""

    @property
    def request(self) -> Request:
        """Its settings."""
        ...

    @property
    def random(self) -> torch.Generator:
        """Where its draws come from."""
        ...

    @property
    def counts(self) -> Mapping[int, int]:
        """How often it has written each id."""
        ...


@dataclass(frozen=True)
class Choice:
    """A chosen id; `logprob` is NaN where the logits were not numbers."""

    id: int
    logprob: float
    top_logprobs: TopLogprobs


@torch.inference_mode()
def choose(logits_BV: Tensor, sequences: Sequence[Chooser]) -> list[Choice]:
    """Return a choice for each row of float32 logits (B, V), on any device."""
    requests = [sequence.request for sequence in sequences]
    ids_B = sample_rows(
        _adjusted(logits_BV, sequences),
        [request.sampling for request in requests],
        [sequence.random for sequence in sequences],
    )
    logprobs_B = _logprobs(logits_BV, ids_B)
    # The only place that waits for the device, once for each step.
    ids, logprobs = torch.stack((ids_B.double(), logprobs_B.double())).tolist()
    tops = _tops(logits_BV, [request.logprobs for request in requests])
    return [Choice(int(i), logprob, top) for i, logprob, top in zip(ids, logprobs, tops, strict=True)]


@torch.inference_mode()
def score_prompt(
    logits_TV: Tensor, targets: Sequence[int], count: int
) -> list[tuple[float | None, TopLogprobs]]:
    """Return the log-probability of each target at its place, and the `count` most likely ids there.

    Args:
        logits_TV: any floating dtype; row t is what comes at the place of target t.
        targets: ids; one past the vocabulary has probability 0.
        count: how many of the most likely to return.
    """
    logits_TV = logits_TV.float()
    targets_T = torch.tensor(targets, device=logits_TV.device)
    known_T = targets_T < logits_TV.shape[-1]
    logprobs_T = _logprobs(logits_TV, targets_T.where(known_T, 0)).where(known_T, -torch.inf)
    return list(zip(logprobs_T.tolist(), _tops(logits_TV, [count] * len(targets)), strict=True))


def _adjusted(logits_BV: Tensor, sequences: Sequence[Chooser]) -> Tensor:
    """Return the logits with each sequence's bias and penalties; the same tensor where none has any."""
    adjusted_BV = logits_BV
    for row, sequence in enumerate(sequences):
        sampling, bias = sequence.request.sampling, sequence.request.logit_bias
        if not (bias or sampling.presence_penalty or sampling.frequency_penalty):
            continue
        if adjusted_BV is logits_BV:
            adjusted_BV = logits_BV.clone()
        adjusted_BV[row] = penalised(logits_BV[row], config=sampling, counts=sequence.counts, bias=bias)
    return adjusted_BV


def _logprobs(logits_BV: Tensor, ids_B: Tensor) -> Tensor:
    """Return the log-probability of one id in each row, float32 (B)."""
    # All of them, because this is one pass on the CPU; `logsumexp` takes several.
    return logits_BV.log_softmax(dim=-1).gather(-1, ids_B.unsqueeze(-1)).squeeze(-1)


def _tops(logits_BV: Tensor, counts: Sequence[int]) -> list[TopLogprobs]:
    """Return the most likely ids of each row, as many as its count says."""
    tops: list[TopLogprobs] = [()] * len(counts)
    rows = [row for row, count in enumerate(counts) if count]
    if not rows:
        return tops
    wanted_BV = logits_BV if len(rows) == len(logits_BV) else logits_BV[rows]
    best_BK = wanted_BV.topk(min(max(counts), wanted_BV.shape[-1]), dim=-1).indices
    # To the bit what `_logprobs` gives: evaluators ask whether the chosen one equals the largest.
    logprobs_BK = wanted_BV.log_softmax(dim=-1).gather(-1, best_BK)
    for row, ids, values in zip(rows, best_BK.tolist(), logprobs_BK.tolist(), strict=True):
        tops[row] = tuple(zip(ids, values, strict=True))[: counts[row]]
    return tops
