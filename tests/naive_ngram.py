"""N-gram models the slow way, in dictionaries: estimation with modified Kneser-Ney, and backing off in ARPA.

Written from Chen and Goodman (1998) and the description of lmplz in Heafield et al. (2013), in float64.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

Gram = tuple[str, ...]
Model = dict[Gram, tuple[float, float]]
"""log10 probability and log10 backoff by n-gram."""

FALLBACK = (0.0, 0.5, 1.0, 1.5)


def estimate(sentences: Sequence[Sequence[str]], order: int) -> Model:
    """Interpolated modified Kneser-Ney with lmplz's conventions."""
    raw, adjusted = _counts(sentences, order)
    discounts = [_discounts(raw[k], adjusted[k], sentences, k, order) for k in range(1, order + 1)]
    words = {gram[0] for gram in adjusted[1]} | {"<unk>"}
    probability: dict[Gram, float] = {}
    backoff: dict[Gram, float] = {}
    for k in range(1, order + 1):
        followers: dict[Gram, list[Gram]] = defaultdict(list)
        for gram in adjusted[k]:
            followers[gram[:-1]].append(gram)
        for context, grams in followers.items():
            total = sum(adjusted[k][gram] for gram in grams)
            backoff[context] = sum(_of(discounts[k - 1], adjusted[k][gram]) for gram in grams) / total
            for gram in grams:
                count = adjusted[k][gram]
                lower = probability[gram[1:]] if k > 1 else 1 / len(words)
                probability[gram] = (count - _of(discounts[k - 1], count)) / total + backoff[context] * lower
    probability["<unk>",] = backoff[()] / len(words)
    probability["<s>",] = 1.0
    return {gram: (_log10(p), _log10(backoff.get(gram, 1.0))) for gram, p in probability.items()}


def _counts(
    sentences: Sequence[Sequence[str]], order: int
) -> tuple[dict[int, Counter[Gram]], dict[int, dict[Gram, int]]]:
    raw: dict[int, Counter[Gram]] = {k: Counter() for k in range(1, order + 1)}
    for sentence in sentences:
        row = ["<s>", *sentence, "</s>"]
        for k in range(1, order + 1):
            raw[k].update(tuple(row[i : i + k]) for i in range(len(row) - k + 1))
    del raw[1]["<s>",]
    adjusted: dict[int, dict[Gram, int]] = {order: dict(raw[order])}
    for k in range(1, order):
        before = Counter(gram[1:] for gram in raw[k + 1])
        adjusted[k] = {gram: raw[k][gram] if gram[0] == "<s>" else before[gram] for gram in raw[k]}
    return raw, adjusted


def _discounts(
    raw: Counter[Gram], adjusted: dict[Gram, int], sentences: Sequence[Sequence[str]], k: int, order: int
) -> Sequence[float]:
    counts = dict(adjusted)
    if k < order and (last := _last(raw, sentences, k, order)) is not None:
        counts[last] = raw[last]
    n = Counter(counts.values())
    if not (n[1] and n[2] and n[3]):
        return FALLBACK
    y = n[1] / (n[1] + 2 * n[2])
    found = [0.0, *(j - (j + 1) * y * n[j + 1] / n[j] for j in (1, 2, 3))]
    return found if all(0 <= found[j] <= j for j in (1, 2, 3)) else FALLBACK


def _last(raw: Counter[Gram], sentences: Sequence[Sequence[str]], k: int, order: int) -> Gram | None:
    """The suffix of k words of the last full n-gram in suffix order; lmplz counts it raw."""
    ids = {word: i for i, word in enumerate(["<unk>", "<s>", "</s>"])}
    for sentence in sentences:
        for word in sentence:
            ids.setdefault(word, len(ids))
    full = []
    for sentence in sentences:
        row = ["<s>"] * (order - 1) + [*sentence, "</s>"]
        full += [tuple(row[i : i + order]) for i in range(len(row) - order + 1)]
    last = max(full, key=lambda gram: [ids[word] for word in reversed(gram)])
    suffix = last[order - k :]
    return suffix if suffix in raw else None


def _of(discounts: Sequence[float], count: int) -> float:
    return discounts[min(count, 3)]


def _log10(value: float) -> float:
    return math.log10(value) if value > 0 else -math.inf


def read_arpa(text: str) -> Model:
    """Every entry of an ARPA file as lmplz writes it."""
    fields = [line.split("\t") for line in text.split("\n") if "\t" in line]
    return {
        tuple(part[1].split(" ")): (float(part[0]), float(part[2]) if len(part) > 2 else 0.0)
        for part in fields
    }


def log10_probabilities(model: Model, order: int, words: Sequence[str]) -> list[float]:
    """Of each word and of `</s>`, by backing off one word at a time."""
    row = ["<s>", *(word if (word,) in model else "<unk>" for word in words), "</s>"]
    return [_conditional(model, tuple(row[max(0, i - order + 1) : i]), row[i]) for i in range(1, len(row))]


def _conditional(model: Model, context: Gram, word: str) -> float:
    if (*context, word) in model:
        return model[(*context, word)][0]
    return model.get(context, (0.0, 0.0))[1] + _conditional(model, context[1:], word)
