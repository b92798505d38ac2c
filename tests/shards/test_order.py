"""The order of samples: a bijection each epoch, the right mix in every prefix, the epochs of Table 1."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from criadero.errors import DataError
from criadero.shards.order import OrderedSource, SampleOrder, _go_left
from criadero.shards.permutation import permute

# LLaMA Table 1: share of the samples, epochs at 1.4T tokens; unique tokens (in billions) follow from both.
TABLE_1 = {
    "CommonCrawl": (0.670, 1.10, 853),
    "C4": (0.150, 1.06, 198),
    "Github": (0.045, 0.64, 98),
    "Wikipedia": (0.045, 2.45, 26),
    "Books": (0.045, 2.23, 28),
    "ArXiv": (0.025, 1.06, 33),
    "StackExchange": (0.020, 1.03, 27),
}

weight_lists = st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=9)


def _order(weights: list[float], *, sizes: list[int] | None = None, seed: int = 0) -> SampleOrder:
    sizes = sizes or [1000] * len(weights)
    sources = [OrderedSource(f"s{n}", sizes[n], weight) for n, weight in enumerate(weights)]
    return SampleOrder(sources, seed)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 700), st.integers(0, 2**64 - 1))
def test_permute_is_a_bijection(size: int, key: int) -> None:
    indices = np.arange(size)
    out = permute(indices, np.full(size, size), np.full(size, key, dtype=np.uint64))
    assert np.sort(out).tolist() == indices.tolist()


def test_permutations_differ_by_key_and_look_random() -> None:
    size = 10_007
    indices = np.arange(size)
    sizes = np.full(size, size)
    first, second = (permute(indices, sizes, np.full(size, key, dtype=np.uint64)) for key in (1, 2))
    for a, b in [(indices, first), (indices, second), (first, second)]:
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.04  # 4 standard deviations of chance
        assert (a == b).sum() < 10  # chance: one
    assert (np.abs(np.diff(first)) == 1).sum() < 12  # neighbours stay together by chance only: two


def test_permute_holds_for_huge_sizes() -> None:
    size = 1 << 61
    indices = np.array([0, 1, 2, size - 1])
    out = permute(indices, np.full(4, size), np.full(4, 5, dtype=np.uint64))
    assert len(set(out.tolist())) == 4
    assert ((out >= 0) & (out < size)).all()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**61), st.integers(1, 2**32 - 1))
def test_the_fork_rounds_exactly(count: int, share: int) -> None:
    assert int(_go_left(np.array([count]), share)[0]) == (count * share + 2**31) // 2**32


@settings(max_examples=60, deadline=None)
@given(weight_lists, st.integers(0, 10))
def test_every_prefix_has_the_right_mix(weights: list[float], seed: int) -> None:
    order = _order(weights, seed=seed)
    samples = np.arange(3_000)
    chosen = order.locate(samples).source
    for source, (weight, bound) in enumerate(zip(order.weights, order.mix_bounds(3_000), strict=True)):
        count = np.cumsum(chosen == source)
        assert np.abs(count - (samples + 1) * weight).max() <= bound
    assert max(order.mix_bounds(3_000)) < 0.51 * len(weights)


def test_the_mix_of_table_1_is_off_by_about_one_sample_at_most() -> None:
    order = _order([share for share, _, _ in TABLE_1.values()])
    assert max(order.mix_bounds(200_000)) < 1.03
    samples = np.arange(200_000)
    chosen = order.locate(samples).source
    for source, weight in enumerate(order.weights):
        assert np.abs(np.cumsum(chosen == source) - (samples + 1) * weight).max() < 1.0


def test_far_ahead_the_mix_still_holds() -> None:
    order = _order([share for share, _, _ in TABLE_1.values()])
    start = 683_593_750  # 1.4T tokens in sequences of 2048
    first, last = np.array(order.counts(start)), np.array(order.counts(start + 10_000))
    assert (np.abs(first - start * np.array(order.weights)) <= order.mix_bounds(start)).all()
    chosen = order.locate(np.arange(start, start + 10_000)).source
    assert np.bincount(chosen).tolist() == (last - first).tolist()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.floats(0.05, 1.0)), min_size=1, max_size=5), st.integers(0, 9)
)
def test_every_sequence_comes_exactly_once_per_epoch(sources: list[tuple[int, float]], seed: int) -> None:
    sizes = [size for size, _ in sources]
    order = _order([weight for _, weight in sources], sizes=sizes, seed=seed)
    count = 600
    location = order.locate(np.arange(count))
    for source, size in enumerate(sizes):
        mine = location.source == source
        total = order.counts(count)[source]
        assert mine.sum() == total
        assert location.epoch[mine].tolist() == [k // size for k in range(total)]
        for epoch in range(total // size):
            seen = location.sequence[mine & (location.epoch == epoch)]
            assert np.sort(seen).tolist() == list(range(size))


def test_random_access_equals_the_walk() -> None:
    order = _order([0.5, 0.3, 0.2], sizes=[7, 11, 100], seed=5)
    walk = order.locate(np.arange(500))
    places = np.random.default_rng(0).permutation(500)
    jump = order.locate(places)
    for name in ("source", "epoch", "sequence"):
        assert getattr(jump, name).tolist() == getattr(walk, name)[places].tolist()


def test_seed_epoch_and_source_name_each_change_the_shuffle() -> None:
    def sequence(seed: int, name: str, start: int) -> list[int]:
        order = SampleOrder([OrderedSource(name, 50, 1.0)], seed)
        return order.locate(np.arange(start, start + 50)).sequence.tolist()

    orders = [sequence(0, "a", 0), sequence(1, "a", 0), sequence(0, "a", 50), sequence(0, "b", 0)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


def test_the_order_is_the_one_of_format_version_1() -> None:
    location = _order([0.6, 0.4], sizes=[10, 10], seed=1).locate(np.arange(12))
    # Saved runs resume by it: a change needs a new format version.
    assert location.source.tolist() == [0, 1, 0, 1, 0, 0, 1, 0, 1, 0, 0, 1]
    assert location.sequence.tolist() == [6, 4, 3, 9, 9, 2, 5, 7, 1, 8, 4, 7]


def test_the_epochs_of_table_1_follow_from_shares_and_sizes() -> None:
    """LLaMA Table 1, from the sizes in whole billions of tokens: as exact as those are known."""
    sources = [
        OrderedSource(n, billions * 10**9 // 2048, share) for n, (share, _, billions) in TABLE_1.items()
    ]
    epochs = SampleOrder(sources, 0).epochs(1_400 * 10**9 // 2048)
    for found, (_, published, billions) in zip(epochs, TABLE_1.values(), strict=True):
        # Sizes are known to half a billion tokens, epochs to half of the second decimal.
        assert found == pytest.approx(published, abs=0.005 + found * 0.5 / billions)


def test_the_epochs_of_table_1_come_back_to_two_decimals() -> None:
    """With the sizes that Table 1 implies, not rounded to billions."""
    sources = [
        OrderedSource(name, round(share * 1.4e12 / published / 2048), share)
        for name, (share, published, _) in TABLE_1.items()
    ]
    epochs = SampleOrder(sources, 0).epochs(1_400 * 10**9 // 2048)
    assert [round(found, 2) for found in epochs] == [published for _, published, _ in TABLE_1.values()]


def test_a_source_without_a_sequence_is_refused() -> None:
    with pytest.raises(DataError, match="source `s1` is shorter than one training sequence"):
        _order([1.0, 1.0], sizes=[3, 0])
