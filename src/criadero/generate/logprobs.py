"""Choosing the next tokens of a batch, with their log-probabilities; and those of a prompt's own tokens.

Entry points: `choose` and `score_prompt`. Log-probabilities are the model's own, before bias, penalties,
temperature and filters, and over all its ids; those that only pad the vocabulary are never chosen.
Letters: B batch, T sequence, V vocabulary.
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
def choose(logits_BV: Tensor, sequences: Sequence[Chooser], *, known: int) -> list[Choice]:
    """Return a choice for each row of float32 logits (B, V), on any device, among the first `known` ids."""
    requests = [sequence.request for sequence in sequences]
    ids_B = sample_rows(
        _adjusted(logits_BV[:, :known], sequences),
        [request.sampling for request in requests],
        [sequence.random for sequence in sequences],
    )
    logprobs_B = _logprobs(logits_BV, ids_B)
    # The only place that waits for the device, once for each step.
    ids, logprobs = torch.stack((ids_B.double(), logprobs_B.double())).tolist()
    tops = _tops(logits_BV, [request.logprobs for request in requests], known=known)
    return [Choice(int(i), logprob, top) for i, logprob, top in zip(ids, logprobs, tops, strict=True)]


@torch.inference_mode()
def score_prompt(
    logits_TV: Tensor, targets: Sequence[int], count: int, *, known: int
) -> list[tuple[float, TopLogprobs]]:
    """Return the log-probability of each target at its place, and the `count` most likely ids there.

    Args:
        logits_TV: any floating dtype; row t is what comes at the place of target t.
        targets: ids.
        count: how many of the most likely to return.
        known: how many ids have a text; only these are returned.
    """
    logits_TV = logits_TV.float()
    logprobs_T = _logprobs(logits_TV, torch.tensor(targets, device=logits_TV.device))
    return list(zip(logprobs_T.tolist(), _tops(logits_TV, [count] * len(targets), known=known), strict=True))


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


def _tops(logits_BV: Tensor, counts: Sequence[int], *, known: int) -> list[TopLogprobs]:
    """Return the most likely of the first `known` ids of each row, as many as its count says."""
    tops: list[TopLogprobs] = [()] * len(counts)
    rows = [row for row, count in enumerate(counts) if count]
    if not rows:
        return tops
    wanted_BV = logits_BV if len(rows) == len(logits_BV) else logits_BV[rows]
    best_BK = wanted_BV[:, :known].topk(min(max(counts), known), dim=-1).indices
    # To the bit what `_logprobs` gives: evaluators ask whether the chosen one equals the largest.
    logprobs_BK = wanted_BV.log_softmax(dim=-1).gather(-1, best_BK)
    for row, ids, values in zip(rows, best_BK.tolist(), logprobs_BK.tolist(), strict=True):
        tops[row] = tuple(zip(ids, values, strict=True))[: counts[row]]
    return tops
