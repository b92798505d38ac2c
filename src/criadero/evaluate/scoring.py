"""How likely a model finds continuations of contexts, many at once.

Entry point: `Scorer.score`. Beginnings that requests share are forwarded once (`prefixes`), and logits are
made only where a continuation's token is foretold. The result of a request is what it would be alone, but
for the order of sums. Letters: B rows, T tokens of a row, P kept tokens before it, N places with logits,
L layers, K key/value heads, E head width, D model width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from criadero.errors import DataError, NumericsError
from criadero.evaluate.prefixes import Group, Ids, Unit, plan, rows, shared_lengths, trie_of
from criadero.model.transformer import Transformer

_LOGITS_AT_ONCE = 1 << 25  # 128 MiB of float32


@dataclass(frozen=True)
class ScoreRequest:
    """A context and a continuation of it, at least one token each."""

    context_ids: Ids
    continuation_ids: Ids


@dataclass(frozen=True)
class Score:
    """How likely a continuation is.

    Attributes:
        logprobs: of each of its tokens, natural logs.
        greedy: whether each is the likeliest at its place.
    """

    logprobs: tuple[float, ...]
    greedy: bool

    @property
    def logprob(self) -> float:
        """Of the whole continuation."""
        return math.fsum(self.logprobs)


@dataclass
class ScorerCounts:
    """What a scorer has done so far, in tokens."""

    asked: int = 0
    """Contexts and continuations as they are, but for the last tokens, which foretell nothing."""
    forwarded: int = 0
    """Run through the model."""
    padded: int = 0
    """Run through it beside them, to fill rows."""


class Scorer:
    """Scores requests with one model.

    Args:
        model: with loaded weights, on its device, in its dtype.
        row_tokens: of a row that holds several small tries.
        batch_tokens: of a forward pass.
        least_head: fewest shared tokens whose keys and values are kept.
    """

    def __init__(
        self, model: Transformer, *, row_tokens: int = 128, batch_tokens: int = 1024, least_head: int = 32
    ) -> None:
        self.model = model
        self.counts = ScorerCounts()
        self._sizes = {"row_tokens": row_tokens, "batch_tokens": batch_tokens}
        self._least_head = least_head

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[tuple[int, Score]]:
        """Yield (number of a request, its score) as they come, the longest first.

        Raises:
            DataError: a request is empty, too long for the context, or holds an id the model does not know.
            NumericsError: a log-probability is not a number.
        """
        for request in requests:
            self._check(request)
        inputs = [(*r.context_ids, *r.continuation_ids)[:-1] for r in requests]
        order = sorted(range(len(requests)), key=inputs.__getitem__)
        ordered = [inputs[i] for i in order]
        job = _Job([requests[i] for i in order], ordered, shared_lengths(ordered))
        self.counts.asked += sum(map(len, inputs))
        keepable = [len(request.context_ids) - 1 for request in job.requests]
        group = plan(job.inputs, job.shared, keepable=keepable, **self._sizes, least_head=self._least_head)
        for place, score in self._run_group(job, group, _Kept()):
            yield order[place], score

    def _check(self, request: ScoreRequest) -> None:
        config, tokens = self.model.config, len(request.context_ids) + len(request.continuation_ids)
        if not (request.context_ids and request.continuation_ids):
            raise DataError("a request has no context or no continuation", hint="open with the begin token")
        if tokens - 1 > config.max_seq_len:
            raise DataError(f"a request has {tokens:,} tokens, the context holds {config.max_seq_len:,}")
        ids = (*request.context_ids, *request.continuation_ids)
        if min(ids) < 0 or max(ids) >= config.vocab_size:
            raise DataError(f"a request holds an id that the model, of {config.vocab_size:,}, does not know")

    def _run_group(self, job: _Job, group: Group, kept: _Kept) -> Iterator[tuple[int, Score]]:
        if group.head:
            kept = self._extend(kept, group.head)
        for batch in rows(group.units, **self._sizes):
            yield from self._run_batch(job, batch, kept)
        for below in group.groups:
            yield from self._run_group(job, below, kept)

    @torch.inference_mode()
    def _extend(self, kept: _Kept, head: Ids) -> _Kept:
        """Return keys and values of what is kept and `head` behind it."""
        kept, size = kept.copy(), self._sizes["batch_tokens"]
        for start in range(0, len(head), size):
            part = torch.tensor(head[start : start + size], device=self.model.norm.weight.device)[None]
            positions = torch.arange(kept.tokens, kept.tokens + part.shape[1], device=part.device)[None]
            self.model(part, positions_BT=positions, cache=kept, head=lambda _hidden, _weight: None)
        self.counts.forwarded += len(head)
        return kept

    @torch.inference_mode()
    def _run_batch(
        self, job: _Job, batch: Sequence[Sequence[Unit]], kept: _Kept
    ) -> Iterator[tuple[int, Score]]:
        packed = _Packed(job, batch, start=kept.tokens)
        device = self.model.norm.weight.device
        wanted = torch.from_numpy(packed.wanted_N).to(device)
        results = self.model(
            packed.tokens_BT.to(device),
            positions_BT=packed.positions_BT.to(device),
            mask_BTT=packed.attends_BTS.to(device),
            cache=_Behind(kept) if kept.tokens else None,
            head=lambda hidden_BTD, weight_VD: _foretell(
                hidden_BTD.flatten(0, 1)[wanted], weight_VD, packed.rows_M, packed.targets_M
            ),
        )
        used = sum(unit.tokens for row in batch for unit in row)
        self.counts.forwarded += used
        self.counts.padded += packed.tokens_BT.numel() - used
        yield from packed.scores(*results)


@dataclass(frozen=True)
class _Job:
    """The requests in the order of their inputs, and what each shares with the one before it."""

    requests: list[ScoreRequest]
    inputs: list[Ids]
    shared: NDArray[np.int64]


class _Kept:
    """Keys and values of a beginning, which grows; (1, K, P, E) of each layer."""

    def __init__(self) -> None:
        self.tokens = 0
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    def copy(self) -> _Kept:
        """Return one that grows on its own."""
        copy = _Kept()
        copy.tokens, copy.layers = self.tokens, dict(self.layers)
        return copy

    def update(self, layer_index: int, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor]:
        """Append to a layer; return all of it."""
        if layer_index in self.layers:
            before = self.layers[layer_index]
            k_BKTE, v_BKTE = (torch.cat(pair, 2) for pair in zip(before, (k_BKTE, v_BKTE), strict=True))
        self.layers[layer_index] = (k_BKTE, v_BKTE)
        self.tokens = k_BKTE.shape[2]
        return k_BKTE, v_BKTE


class _Behind:
    """Rows behind the same kept beginning, of which nothing is kept."""

    def __init__(self, kept: _Kept) -> None:
        self._kept = kept

    def update(self, layer_index: int, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor]:
        """Return the beginning with each row behind it."""
        k, v = (x.expand(len(k_BKTE), -1, -1, -1) for x in self._kept.layers[layer_index])
        return torch.cat((k, k_BKTE), 2), torch.cat((v, v_BKTE), 2)


class _Packed:
    """A batch of tries as tensors, and where the tokens are foretold that requests ask for.

    Attributes:
        tokens_BT, positions_BT: int64.
        attends_BTS: boolean, S being P + T.
        wanted_N: places in the flat batch whose logits are needed, int64.
        rows_M, targets_M: for every token asked for, its row among those and its id, int64.
    """

    def __init__(self, job: _Job, batch: Sequence[Sequence[Unit]], *, start: int) -> None:
        width = max(sum(unit.tokens for unit in row) for row in batch)
        tokens_BT, positions_BT = np.zeros((2, len(batch), width), dtype=np.int64)
        attends_BTS = np.zeros((len(batch), width, start + width), dtype=np.bool_)
        attends_BTS[:, np.arange(width), start + np.arange(width)] = True  # no row of padding is empty
        attends_BTS[:, :, :start] = True
        self._places: list[tuple[int, NDArray[np.int64]]] = []  # of each request in the sorted order
        targets: list[int] = []
        for number, row in enumerate(batch):
            at = 0
            for unit in row:
                part = slice(unit.first, unit.last)
                trie = trie_of(job.inputs[part], job.shared[part], start=start, size=unit.tokens)
                end = at + unit.tokens
                tokens_BT[number, at:end] = trie.tokens_S
                positions_BT[number, at:end] = trie.positions_S
                attends_BTS[number, at:end, start + at : start + end] = trie.attends_SS
                for index, path in enumerate(trie.paths, start=unit.first):
                    continuation = job.requests[index].continuation_ids
                    self._places.append((index, number * width + at + path[-len(continuation) :]))
                    targets += continuation
                at = end
        flat = np.concatenate([places for _, places in self._places])
        self.wanted_N, rows_M = np.unique(flat, return_inverse=True)
        self.rows_M, self.targets_M = torch.from_numpy(rows_M), torch.tensor(targets)
        self.tokens_BT, self.positions_BT = torch.from_numpy(tokens_BT), torch.from_numpy(positions_BT)
        self.attends_BTS = torch.from_numpy(attends_BTS)

    def scores(self, logprobs: list[float], greedy: list[bool]) -> Iterator[tuple[int, Score]]:
        """Yield (place in the sorted order, score) of each request from the values of all its tokens."""
        at = 0
        for index, places in self._places:
            part = slice(at, at + len(places))
            if any(math.isnan(value) for value in logprobs[part]):
                raise NumericsError("the model's logits are not finite numbers", hint="check its weights")
            yield index, Score(tuple(logprobs[part]), all(greedy[part]))
            at += len(places)


def _foretell(
    hidden_ND: Tensor, weight_VD: Tensor, rows_M: Tensor, targets_M: Tensor
) -> tuple[list[float], list[bool]]:
    """Return the log-probability of each target in its row, and whether it is the likeliest there."""
    rows_M, targets_M = rows_M.to(hidden_ND.device), targets_M.to(hidden_ND.device)
    logprobs_M = torch.empty(len(targets_M), device=hidden_ND.device)
    greedy_M = torch.empty(len(targets_M), dtype=torch.bool, device=hidden_ND.device)
    size = max(1, _LOGITS_AT_ONCE // len(weight_VD))
    for start in range(0, len(hidden_ND), size):
        logits_NV = F.linear(hidden_ND[start : start + size], weight_VD).float()
        of_part = ((rows_M >= start) & (rows_M < start + size)).nonzero().squeeze(1)
        row, target = rows_M[of_part] - start, targets_M[of_part]
        logprobs_M[of_part] = logits_NV[row, target] - logits_NV.logsumexp(-1)[row]
        greedy_M[of_part] = logits_NV.argmax(-1)[row] == target
    return logprobs_M.tolist(), greedy_M.tolist()
