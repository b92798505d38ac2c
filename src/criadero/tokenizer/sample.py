"""A bounded, repeatable sample of text lines for training a tokenizer.

Entry point: `sample_lines`. Text is cut into lines, lines too long for SentencePiece are cut further
instead of being lost, and each source keeps a uniform random choice of its lines within its byte budget.
Memory stays at the budget whatever the size of the text.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from criadero.errors import TokenizerError


@dataclass(frozen=True)
class SourceSample:
    """What was read and kept of one source."""

    read_lines: int
    read_bytes: int
    kept_lines: int
    kept_bytes: int
    cut_lines: int


@dataclass(frozen=True)
class Sample:
    """Lines to train on, in an order that is a function of text and seed, and an account per source."""

    lines: list[str]
    sources: dict[str, SourceSample]


def sample_lines(
    texts_by_source: Mapping[str, Iterable[str]],
    budget_bytes: int,
    *,
    weights: Mapping[str, float] | None,
    max_line_bytes: int,
    seed: int,
) -> Sample:
    """Choose lines within `budget_bytes` of UTF-8.

    Args:
        weights: share of the budget by source; None samples all sources as one text, so that each is
            present in proportion to its size.

    Raises:
        TokenizerError: a weight for a source that is not there, a source without a weight, or no text.
    """
    shares = _shares(texts_by_source, weights)
    reservoirs: dict[str, _Reservoir] = {}
    shared = _Reservoir(budget_bytes, random.Random(f"{seed}"))
    sources: dict[str, SourceSample] = {}
    for name, texts in texts_by_source.items():
        reservoir = shared
        if shares is not None:
            reservoir = _Reservoir(int(budget_bytes * shares[name]), random.Random(f"{seed}:{name}"))
        reservoirs[name] = reservoir
        sources[name] = _fill(reservoir, name, texts, max_line_bytes)
    kept = [line for reservoir in dict.fromkeys(reservoirs.values()) for line in reservoir.lines()]
    if not kept:
        raise TokenizerError("there is no text to train a tokenizer on")
    return Sample([line for _, line in kept], _count_kept(sources, kept))


def cut_line(line: str, max_bytes: int) -> list[str]:
    """Cut a line into pieces of at most `max_bytes` of UTF-8, at blanks where there are any.

    A cut at a blank drops that blank, which the tokenizer puts back before every line it is given; without
    a blank the cut falls between two characters.
    """
    data = line.encode("utf-8", "replace")
    pieces: list[str] = []
    start = 0
    while len(data) - start > max_bytes:
        end = data.rfind(b" ", start + 1, start + max_bytes + 1)
        after = end + 1
        if end < 0:
            end = start + max_bytes
            while data[end] & 0xC0 == 0x80:
                end -= 1
            after = end
        pieces.append(data[start:end].decode())
        start = after
    return [*pieces, data[start:].decode()]


class _Reservoir:
    """Uniform choice of lines under a byte budget: every line draws a key, the smallest keys stay."""

    def __init__(self, budget_bytes: int, generator: random.Random) -> None:
        self._budget_bytes = budget_bytes
        self._generator = generator
        self._heap: list[tuple[float, int, str, str, int]] = []
        self._kept_bytes = 0
        self._count = 0

    def add(self, source: str, line: str, size_bytes: int) -> None:
        self._count += 1
        # The key is negated: the heap's top is the largest key, the first to go.
        entry = (-self._generator.random(), self._count, source, line, size_bytes)
        heapq.heappush(self._heap, entry)
        self._kept_bytes += size_bytes
        while self._kept_bytes > self._budget_bytes:
            self._kept_bytes -= heapq.heappop(self._heap)[-1]

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield (source, line) in the order they were read."""
        for _, _, source, line, _ in sorted(self._heap, key=lambda entry: entry[1]):
            yield source, line


def _fill(reservoir: _Reservoir, name: str, texts: Iterable[str], max_line_bytes: int) -> SourceSample:
    read_lines = read_bytes = cut_lines = 0
    for text in texts:
        for line in text.split("\n"):
            if not line.strip():
                continue
            # differs from paper: SentencePiece, as it was run, leaves longer lines out; here they are cut.
            pieces = cut_line(line, max_line_bytes)
            cut_lines += len(pieces) > 1
            read_lines += 1
            for piece in pieces:
                size_bytes = len(piece.encode())
                read_bytes += size_bytes
                reservoir.add(name, piece, size_bytes)
    return SourceSample(read_lines, read_bytes, kept_lines=0, kept_bytes=0, cut_lines=cut_lines)


def _count_kept(sources: dict[str, SourceSample], kept: list[tuple[str, str]]) -> dict[str, SourceSample]:
    lines = dict.fromkeys(sources, 0)
    sizes_bytes = dict.fromkeys(sources, 0)
    for source, line in kept:
        lines[source] += 1
        sizes_bytes[source] += len(line.encode())
    return {
        name: SourceSample(s.read_lines, s.read_bytes, lines[name], sizes_bytes[name], s.cut_lines)
        for name, s in sources.items()
    }


def _shares(
    texts_by_source: Mapping[str, Iterable[str]], weights: Mapping[str, float] | None
) -> dict[str, float] | None:
    if not texts_by_source:
        raise TokenizerError("there is no source to train a tokenizer on")
    if weights is None:
        return None
    if set(weights) != set(texts_by_source):
        raise TokenizerError(
            f"weights are given for {sorted(weights)}, the sources are {sorted(texts_by_source)}",
            hint="give every source one weight",
        )
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}
