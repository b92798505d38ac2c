"""Choosing the next token: greedy, or drawn after temperature, top-k, top-p and min-p, in this order.

Entry points: `SamplingConfig`; `sample`, and `sample_rows` for rows with settings of their own; `penalised`.
Every filter keeps all tokens of equal probability at its border, so that no result depends on how a sort
breaks ties. Letters: B batch, V vocabulary.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from criadero.config import Config

MAX_STOPS = 16

# Most often this many tokens hold the whole top-p mass; sorting a vocabulary takes ten times as long.
_TOP_P_CANDIDATES = 512


class SamplingConfig(Config):
    """How a continuation is chosen and where it ends."""

    temperature: float = Field(default=0.8, ge=0, le=100)
    """0 takes the most likely token; 1 samples the model's own distribution."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Keep the fewest most likely tokens whose probabilities sum to this."""
    top_k: int | None = Field(default=None, ge=1)
    """Keep this many most likely tokens; unset: all."""
    min_p: float = Field(default=0.0, ge=0, le=1)
    """Drop tokens less likely than this part of the most likely one's probability."""
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    """Taken off the logit of every token that was written before."""
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    """Taken off the logit of a token for each time it was written before."""
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Same seed, same text on the same machine; unset: another one each time."""
    max_tokens: int = Field(default=256, ge=1)
    """Most tokens to write."""
    stop: tuple[Annotated[str, Field(min_length=1, max_length=1000)], ...] = Field((), max_length=MAX_STOPS)
    """Texts that end the continuation, wherever tokens cut them; they are not part of it."""

    @property
    def without_effect(self) -> tuple[str, ...]:
        """Names of the settings given that greedy decoding ignores."""
        chosen = {"top_p", "top_k", "min_p", "seed"} & self.model_fields_set
        return tuple(sorted(chosen)) if self.temperature == 0 else ()


def new_generator(seed: int | None) -> torch.Generator:
    """Return a random generator of its own on the CPU, seeded freshly for None.

    It draws on the CPU for every device, so that one seed means the same draws everywhere.
    """
    return torch.Generator().manual_seed(secrets.randbits(32) if seed is None else seed)


def sample(logits_BV: Tensor, config: SamplingConfig, generator: torch.Generator) -> Tensor:
    """Choose a token for each row without waiting for the device.

    Args:
        logits_BV: any floating dtype, any device.
        config: how to choose.
        generator: on the CPU; one number is drawn for each row, none when greedy.

    Returns:
        int64 ids (B), on the device of the logits.
    """
    if config.temperature == 0:
        return logits_BV.argmax(dim=-1)
    uniform_B1 = torch.rand(len(logits_BV), 1, dtype=torch.float64, generator=generator)
    return _draw(filtered_probabilities(logits_BV, config), uniform_B1)


def sample_rows(
    logits_BV: Tensor, configs: Sequence[SamplingConfig], generators: Sequence[torch.Generator]
) -> Tensor:
    """Choose a token for each row by its own settings; what a row gets does not depend on the others.

    Args:
        logits_BV: any floating dtype, any device.
        configs: one for each row; rows of equal filters are worked on together.
        generators: one for each row, as for `sample`.

    Returns:
        int64 ids (B), on the device of the logits.
    """
    if not any(config.temperature for config in configs):
        return logits_BV.argmax(dim=-1)
    groups: dict[tuple[object, ...], list[int]] = {}
    for row, config in enumerate(configs):
        filters = (config.temperature, config.top_p, config.top_k, config.min_p)
        groups.setdefault(filters if config.temperature else (), []).append(row)
    chosen_B = torch.empty(len(logits_BV), dtype=torch.int64, device=logits_BV.device)
    for rows in groups.values():
        rows_BV = logits_BV if len(rows) == len(logits_BV) else logits_BV[rows]
        chosen_B[rows] = _sample_alike(rows_BV, configs[rows[0]], [generators[row] for row in rows])
    return chosen_B


def _sample_alike(logits_BV: Tensor, config: SamplingConfig, generators: Sequence[torch.Generator]) -> Tensor:
    """Choose a token for each row by the same settings, each with a generator of its own."""
    if config.temperature == 0:
        return logits_BV.argmax(dim=-1)
    draws = [torch.rand(1, 1, dtype=torch.float64, generator=generator) for generator in generators]
    return _draw(filtered_probabilities(logits_BV, config), torch.cat(draws))


def penalised(
    logits_V: Tensor,
    *,
    config: SamplingConfig,
    counts: Mapping[int, int],
    bias: Mapping[int, float],
) -> Tensor:
    """Return logits (V) less the penalties of the tokens written so far, plus bias.

    Args:
        counts: how often each id was written.
        bias: id to what is added to its logit.
    """
    changes = dict(bias)
    if config.presence_penalty or config.frequency_penalty:
        for token_id, count in counts.items():
            penalty = config.presence_penalty + config.frequency_penalty * count
            changes[token_id] = changes.get(token_id, 0.0) - penalty
    ids = torch.tensor(list(changes), dtype=torch.int64)
    values = torch.tensor(list(changes.values()), dtype=logits_V.dtype)
    return logits_V.index_add(0, ids.to(logits_V.device), values.to(logits_V.device))


def filtered_probabilities(logits_BV: Tensor, config: SamplingConfig) -> Tensor:
    """Return float32 probabilities (B, V), zero where a filter dropped a token, summing to at most 1."""
    logits_BV = logits_BV.float()
    # The greatest becomes 0, so that no temperature, however small, overflows.
    logits_BV = (logits_BV - logits_BV.amax(dim=-1, keepdim=True)) / max(config.temperature, 1e-30)
    if config.top_k is not None and config.top_k < logits_BV.shape[-1]:
        border_B1 = logits_BV.topk(config.top_k, dim=-1).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < border_B1, -torch.inf)
    probs_BV = logits_BV.softmax(dim=-1)
    if config.top_p < 1:
        probs_BV = probs_BV.masked_fill(probs_BV < _top_p_border(probs_BV, config.top_p), 0)
    if config.min_p > 0:
        border_B1 = config.min_p * probs_BV.amax(dim=-1, keepdim=True)
        probs_BV = probs_BV.masked_fill(probs_BV < border_B1, 0)
    return probs_BV


def _top_p_border(probs_BV: Tensor, top_p: float) -> Tensor:
    """Return the probability (B, 1) of the last token that is needed to reach `top_p`."""
    count = min(_TOP_P_CANDIDATES, probs_BV.shape[-1])
    best_BN = probs_BV.topk(count, dim=-1).values
    # On the CPU one may look at the sum; elsewhere that would wait for the device, and sorting is quick.
    if probs_BV.device.type != "cpu" or bool((best_BN.double().sum(dim=-1) < top_p).any()):
        best_BN = probs_BV.sort(dim=-1, descending=True).values
    sums_BN = best_BN.double().cumsum(dim=-1)
    needed_B1 = (sums_BN - best_BN < top_p).sum(dim=-1, keepdim=True)
    return best_BN.gather(-1, needed_B1 - 1)


def _draw(probs_BV: Tensor, uniform_B1: Tensor) -> Tensor:
    """Take the index of each row at a point of its cumulative distribution; never one of probability 0."""
    sums_BV = probs_BV.double().cumsum(dim=-1)
    total_B1 = sums_BV[:, -1:].contiguous()
    target_B1 = uniform_B1.to(probs_BV.device, non_blocking=True) * total_B1
    last_B1 = torch.searchsorted(sums_BV, total_B1)
    chosen_B1 = torch.searchsorted(sums_BV, target_B1, right=True).minimum(last_B1)
    return chosen_B1.clamp(max=probs_BV.shape[-1] - 1).squeeze(-1)  # NaN is found past the end
