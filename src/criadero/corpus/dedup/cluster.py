"""Connected components over millions of links, in numpy.

Entry points: `first_of_cluster`, with which near-duplicates turn linked pairs into clusters, and `places_of`
for the numbers that stand for documents.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Places: TypeAlias = npt.NDArray[np.int64]

ROW_BITS = 32


def places_of(table: pa.Table, split: str, row: str) -> Places:
    """Return the places that two columns hold as one number each, in the order of documents."""
    splits, rows = (np.asarray(table[name].to_numpy(), np.int64) for name in (split, row))
    return (splits << ROW_BITS) | rows


def first_of_cluster(left: Places, right: Places) -> tuple[Places, Places]:
    """Return every number that is linked, ascending, and beside each the smallest of its cluster.

    Args:
        left: one end of each link.
        right: the other end, same shape.
    """
    numbers, ends = np.unique(np.concatenate([left, right]), return_inverse=True)
    left_ends, right_ends = ends.reshape(2, -1)
    root = np.arange(len(numbers))
    while True:
        low, high = np.sort(np.stack([root[left_ends], root[right_ends]]), axis=0)
        apart = low != high
        if not apart.any():
            return numbers, numbers[root]
        # Every root hangs itself below its smallest neighbour, then all paths are cut short: each round
        # at least halves the clusters that still have a neighbour.
        np.minimum.at(root, high[apart], low[apart])
        while not np.array_equal(shorter := root[root], root):
            root = shorter
