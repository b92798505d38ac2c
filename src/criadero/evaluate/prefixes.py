"""What token sequences share: a plan that forwards every shared beginning once.

Entry point: `plan`. The sequences are sorted, so that those with a common beginning are neighbours and
together a trie. A `Unit` is a small trie, forwarded as one row: a token attends to its ancestors only. A
beginning whose followers do not fit one batch becomes the head of a `Group`: its keys and values are kept
while its units are forwarded. `rows` packs units into rows of a batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Unit:
    """Sequences `first` to `last` - 1 of the sorted ones, and how many tokens they have beyond the head."""

    first: int
    last: int
    tokens: int


@dataclass
class Group:
    """Units that begin with the same tokens.

    Attributes:
        end: how many tokens at the beginning are kept, those of the groups above included.
        head: the last of these, which the group above does not have.
        units: to be forwarded behind them.
        groups: that share more.
    """

    end: int = 0
    head: Ids = ()
    units: list[Unit] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)


def shared_lengths(sequences: Sequence[Ids]) -> NDArray[np.int64]:
    """Return how many tokens each sequence shares with the one before it, 0 for the first."""
    lengths = np.zeros(len(sequences), dtype=np.int64)
    for index, (before, sequence) in enumerate(pairwise(sequences), start=1):
        limit = min(len(before), len(sequence))
        if before[:limit] == sequence[:limit]:
            lengths[index] = limit
        else:
            lengths[index] = next(i for i, (a, b) in enumerate(zip(before, sequence, strict=False)) if a != b)
    return lengths


def plan(
    sequences: Sequence[Ids],
    shared: NDArray[np.int64],
    *,
    keepable: Sequence[int],
    row_tokens: int,
    batch_tokens: int,
    least_head: int,
) -> Group:
    """Return the group of all sequences.

    Args:
        sequences: sorted, none empty.
        shared: their `shared_lengths`.
        keepable: how many first tokens of each may become part of a head; nothing is asked of these.
        row_tokens: a unit is split while it has more tokens and shares little.
        batch_tokens: a unit that shares much is split only if it has more.
        least_head: fewest shared tokens that are worth keeping.
    """
    lengths, kept_N = np.array([len(s) for s in sequences]), np.array(keepable)
    new_N = np.concatenate([[0], np.cumsum(lengths - shared)])
    root = Group()
    work = [(0, len(sequences), root)] if sequences else []
    while work:
        first, last, group = work.pop()
        tokens = int(new_N[last] - new_N[first] + shared[first]) - group.end
        if last - first == 1 or tokens <= row_tokens:
            group.units.append(Unit(first, last, tokens))
            continue
        common = int(shared[first + 1 : last].min())
        end = min(common, int(kept_N[first:last].min()))
        if end - group.end >= least_head:
            if tokens <= batch_tokens:
                group.units.append(Unit(first, last, tokens))
                continue
            below = Group(end, sequences[first][group.end : end])
            group.groups.append(below)
            group = below
        borders = first + 1 + np.flatnonzero(shared[first + 1 : last] == common)
        work += [(a, b, group) for a, b in pairwise([first, *borders.tolist(), last])]
    return root


def rows(units: Sequence[Unit], *, row_tokens: int, batch_tokens: int) -> Iterator[list[list[Unit]]]:
    """Yield batches, the longest first; each is a list of rows, each row a list of units side by side."""
    left = deque(sorted(units, key=lambda unit: unit.tokens, reverse=True))
    while left:
        width = max(left[0].tokens, row_tokens)
        batch: list[list[Unit]] = []
        while left and (not batch or (len(batch) + 1) * width <= batch_tokens):
            batch.append(_fill(left, width))
        yield batch


def _fill(left: deque[Unit], width: int) -> list[Unit]:
    """Take a row's worth of units, long ones first, then short ones into what is left of it."""
    row, room = [left.popleft()], width
    room -= row[0].tokens
    while left and left[0].tokens <= room:
        room -= left[0].tokens
        row.append(left.popleft())
    while left and left[-1].tokens <= room:
        room -= left[-1].tokens
        row.append(left.pop())
    return row


@dataclass(frozen=True)
class Trie:
    """The tokens of a unit, each once.

    Attributes:
        tokens_S: int64 ids.
        positions_S: int64, counted from the beginning of the sequences.
        attends_SS: boolean, True where a token may attend.
        paths: the slots of each sequence's tokens, beyond those kept.
    """

    tokens_S: NDArray[np.int64]
    positions_S: NDArray[np.int64]
    attends_SS: NDArray[np.bool_]
    paths: list[NDArray[np.int64]]


def trie_of(sequences: Sequence[Ids], shared: NDArray[np.int64], *, start: int, size: int) -> Trie:
    """Return the trie of sorted sequences, without their first `start` tokens, which they all share.

    Args:
        shared: how much each shares with the one before it; the first value is not looked at.
        size: how many tokens it has.
    """
    tokens_S, positions_S = np.empty(size, dtype=np.int64), np.empty(size, dtype=np.int64)
    attends_SS = np.zeros((size, size), dtype=np.bool_)
    path, paths, used = np.empty(0, dtype=np.int64), [], 0
    for number, sequence in enumerate(sequences):
        at = max(int(shared[number]), start) if number else start
        end = used + len(sequence) - at
        ancestors = path[: at - start]
        tokens_S[used:end] = sequence[at:]
        positions_S[used:end] = np.arange(at, len(sequence))
        attends_SS[used:end, ancestors] = True
        attends_SS[used:end, used:end] = np.tri(end - used, dtype=np.bool_)
        path = np.concatenate([ancestors, np.arange(used, end)])
        paths.append(path)
        used = end
    assert used == size
    return Trie(tokens_S, positions_S, attends_SS, paths)
