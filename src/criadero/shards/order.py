"""Which training sequence the n-th global sample is: a pure function of (seed, n, mixture weights).

`SampleOrder.locate` answers for any n at once, so a loader's whole state is the next n, whatever the number
of ranks. Mixing (LLaMA 2.1, Table 1): the sources are the leaves of a Huffman tree of their weights; at each
fork with left share q, of the first n samples that pass it round(n * q) go left (largest remainder for two),
which spreads both sides evenly. A source's k-th sample is sequence k mod N of its epoch k div N, in an
order shuffled anew each epoch.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from criadero.errors import DataError
from criadero.shards.permutation import mix64, permute

Int64s = npt.NDArray[np.int64]

_SHARE_BITS = np.uint64(32)
_HALF_SHARE = np.uint64(1 << 31)
_LOW = np.uint64((1 << 32) - 1)


@dataclass(frozen=True)
class OrderedSource:
    """One source: its name (which decides its shuffle), size in sequences and share of the samples."""

    name: str
    num_sequences: int
    weight: float


@dataclass(frozen=True)
class Location:
    """Where samples come from, arrays of one shape (N,): source number, epoch from 0, sequence."""

    source: Int64s
    epoch: Int64s
    sequence: Int64s


@dataclass(frozen=True)
class _Leaf:
    source: int


@dataclass(frozen=True)
class _Fork:
    """Of n samples that pass, `(n * left_share + 2**31) >> 32` go left."""

    left_share: int
    left: _Leaf | _Fork
    right: _Leaf | _Fork


class SampleOrder:
    """The endless order of training sequences.

    Attributes:
        weights: the share of each source, summing to 1.

    Raises:
        DataError: a source without a sequence.
    """

    def __init__(self, sources: Sequence[OrderedSource], seed: int) -> None:
        if empty := [source.name for source in sources if source.num_sequences < 1]:
            raise DataError(
                f"source `{empty[0]}` is shorter than one training sequence",
                hint="give it more text or lower data.seq_len",
            )
        total = sum(source.weight for source in sources)
        self.sources = tuple(sources)
        self.weights = tuple(source.weight / total for source in sources)
        self._sizes = np.array([source.num_sequences for source in sources], dtype=np.int64)
        self._keys = np.array([_source_key(seed, source.name) for source in sources], dtype=np.uint64)
        self._tree = _huffman(self.weights, [source.name for source in sources])

    def mix_bounds(self, num_samples: int) -> tuple[float, ...]:
        """Return for each source the most that any prefix of up to `num_samples` can be off its weight.

        |count(n) - n * weight| <= bound, in samples. Each fork rounds (half a sample) and knows its share to
        2**-32; what it is off by is thinned by the shares of the forks below it. Table 1: about one sample.
        """
        bounds = [0.0] * len(self.sources)
        _collect_bounds(self._tree, 0.0, 0.5 + num_samples * 2.0**-32, bounds)
        return tuple(bounds)

    def locate(self, samples: Int64s) -> Location:
        """Return where global samples (N,) come from; any order, any n from 0 to 2**62."""
        sources, ranks = np.zeros_like(samples), np.zeros_like(samples)
        _descend(self._tree, np.arange(samples.size), samples, sources, ranks)
        sizes = self._sizes[sources]
        epochs = ranks // sizes
        keys = mix64(self._keys[sources] ^ mix64(epochs.astype(np.uint64)))
        return Location(sources, epochs, permute(ranks % sizes, sizes, keys))

    def counts(self, num_samples: int) -> tuple[int, ...]:
        """Return how many of the first `num_samples` samples come from each source."""
        counts = [0] * len(self.sources)
        forks: list[tuple[_Leaf | _Fork, int]] = [(self._tree, num_samples)]
        while forks:
            node, passing = forks.pop()
            if isinstance(node, _Leaf):
                counts[node.source] = passing
            else:
                left = int(_go_left(np.array([passing]), node.left_share)[0])
                forks += [(node.left, left), (node.right, passing - left)]
        return tuple(counts)

    def epochs(self, num_samples: int) -> tuple[float, ...]:
        """Return how often the first `num_samples` samples go through each source (Table 1)."""
        return tuple(
            count / source.num_sequences
            for count, source in zip(self.counts(num_samples), self.sources, strict=True)
        )


def _source_key(seed: int, name: str) -> int:
    digest = hashlib.blake2b(name.encode(), digest_size=8, key=seed.to_bytes(8, "little")).digest()
    return int.from_bytes(digest, "little")


def _huffman(weights: Sequence[float], names: Sequence[str]) -> _Leaf | _Fork:
    """Join the two lightest groups until one is left: heavy sources sit close to the root.

    Equal weights are told apart by name, so the order in which sources are listed does not matter.
    """
    heap: list[tuple[float, str, _Leaf | _Fork]] = [
        (weight, name, _Leaf(number))
        for number, (weight, name) in enumerate(zip(weights, names, strict=True))
    ]
    heapq.heapify(heap)
    while len(heap) > 1:
        light, name, right = heapq.heappop(heap)
        heavy, _, left = heapq.heappop(heap)
        share = min(max(round(heavy / (light + heavy) * 2**32), 1), 2**32 - 1)
        heapq.heappush(heap, (light + heavy, name, _Fork(share, left, right)))
    return heap[0][2]


def _go_left(counts: Int64s, share: int) -> Int64s:
    """Return floor(count * share / 2**32 + 1/2), exactly: in two halves, so that nothing overflows."""
    high, low = counts.astype(np.uint64) >> _SHARE_BITS, counts.astype(np.uint64) & _LOW
    factor = np.uint64(share)
    return (high * factor + ((low * factor + _HALF_SHARE) >> _SHARE_BITS)).astype(np.int64)


def _descend(node: _Leaf | _Fork, places: Int64s, ranks: Int64s, sources: Int64s, out_ranks: Int64s) -> None:
    """Lead samples with rank n among those that pass `node` to their leaf; write into the last two."""
    if isinstance(node, _Leaf):
        sources[places] = node.source
        out_ranks[places] = ranks
        return
    before = _go_left(ranks, node.left_share)
    left = _go_left(ranks + 1, node.left_share) > before
    _descend(node.left, places[left], before[left], sources, out_ranks)
    _descend(node.right, places[~left], (ranks - before)[~left], sources, out_ranks)


def _collect_bounds(node: _Leaf | _Fork, bound: float, rounding: float, out: list[float]) -> None:
    if isinstance(node, _Leaf):
        out[node.source] = bound
        return
    share = node.left_share / 2**32
    _collect_bounds(node.left, bound * share + rounding, rounding, out)
    _collect_bounds(node.right, bound * (1 - share) + rounding, rounding, out)
