"""Scores one request at a time, whole, without a cache: what `Scorer` has to equal."""

from __future__ import annotations

import torch

from criadero.evaluate.scoring import Score, ScoreRequest
from criadero.model.transformer import Transformer


@torch.inference_mode()
def naive_score(model: Transformer, request: ScoreRequest) -> Score:
    """Return the score of one request from the logits of all its tokens."""
    ids = torch.tensor([*request.context_ids, *request.continuation_ids])
    count = len(request.continuation_ids)
    logprobs_TV = model(ids[None, :-1])[0].float().log_softmax(-1)[-count:]
    targets = ids[-count:]
    found = logprobs_TV.gather(-1, targets[:, None]).squeeze(-1)
    return Score(tuple(found.tolist()), bool((logprobs_TV.argmax(-1) == targets).all()))
