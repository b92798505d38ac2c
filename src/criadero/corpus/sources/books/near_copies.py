"""Books that are contained in others: found by a sample of their shingles, verified on all of them.

Entry point: `make_near_copies`, a cross-document step. A book is the set of its runs of eight words. Of their
hashes those divisible by 64 are exchanged: two books that share many of them are a candidate pair. Each pair
is then read again and compared exactly. (Of texts with few hundred words the sample may be empty: those are
found only as exact copies.) LLaMA 2.1 removed "books with more than 90 % content overlap".
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from criadero.corpus.dedup.cluster import places_of
from criadero.corpus.document import Document, Drop
from criadero.corpus.engine.stage import Decision, Documents
from criadero.corpus.shingles import Hashes, WordHashes, ngram_hashes
from criadero.notices import say_once

Metric = Literal["containment", "jaccard"]
Place: TypeAlias = tuple[int, int]
_Integers: TypeAlias = npt.NDArray[np.int64]

SHINGLE_WORDS = 8
SAMPLED_OF = 64
PRIORITY = "priority"
# A passage in more books than this pairs all of them with the longest few only, not with each other.
MAX_HOLDERS = 64
_LEADERS = 4
_PAIRS_AT_ONCE = 16  # up to 32 books of some megabytes of hashes each
_RESULT = pa.schema(
    [("split", pa.uint32()), ("row", pa.uint32()), ("other", pa.string()), ("score", pa.float64())]
)


def make_near_copies(*, threshold: float, metric: Metric) -> NearCopies:
    """Return the step that drops what is contained in another book.

    Args:
        threshold: overlap above which a book goes, between 0 and 1.
        metric: `containment`, shared shingles by those of the smaller book, or `jaccard`, by those of both.
    """
    return NearCopies(threshold, metric)


@dataclass(frozen=True)
class Book:
    """What decisions are made on; a lower priority number means an earlier input."""

    place: Place
    id: str
    priority: int
    shingles: int


@dataclass(frozen=True)
class Overlap:
    """Two books and how many shingles they share."""

    left: Book
    right: Book
    shared: int

    def of_smaller(self) -> float:
        """Return the containment of the smaller book in the other."""
        return self.shared / min(self.left.shingles, self.right.shingles)

    def of_larger(self) -> float:
        """Return the containment of the larger book in the other."""
        return self.shared / max(self.left.shingles, self.right.shingles)

    def jaccard(self) -> float:
        """Return the share of all their shingles that both have."""
        return self.shared / (self.left.shingles + self.right.shingles - self.shared)


def shingles_of(words: Hashes) -> Hashes:
    """Return the shingles of a text from the hashes of its words; of a shorter one a single shingle."""
    return np.unique(ngram_hashes(words, min(SHINGLE_WORDS, max(1, len(words)))))


class NearCopies:
    """The step; see the module."""

    schema = pa.schema(
        [("key", pa.uint64()), ("sampled", pa.uint32()), ("shingles", pa.uint32()), ("priority", pa.uint32())]
    )

    def __init__(self, threshold: float, metric: Metric) -> None:
        self.threshold = threshold
        self.metric = metric
        self._words = WordHashes()

    def emit(self, document: Document) -> Mapping[str, Any]:
        """Return the sampled shingles of a book, and one key for all of its words: copies meet there."""
        words = self._words(document.text)
        shingles = shingles_of(words)
        whole = int.from_bytes(hashlib.blake2b(words.tobytes(), digest_size=8).digest(), "little")
        sample = shingles[shingles % np.uint64(SAMPLED_OF) == 0]
        keys = np.unique(np.append(sample, np.uint64(whole))) if len(words) else sample
        count = len(keys)
        return {
            "key": keys,
            "sampled": np.full(count, count, np.uint32),
            "shingles": np.full(count, len(shingles), np.uint32),
            "priority": np.full(count, _priority(document), np.uint32),
        }

    @property
    def reduce(self) -> str:
        """Count, for each pair of books, the keys of this range that both have; `combine` adds them up.

        A row of a book with itself counts its keys that were not compared with all their holders.
        """
        return f"""
            WITH held AS (
                SELECT *, count(*) OVER by_key > {MAX_HOLDERS} AS crowded, row_number() OVER ranked AS rank
                FROM records
                WINDOW by_key AS (PARTITION BY key),
                       ranked AS (PARTITION BY key ORDER BY priority, shingles DESC, split, row)
            )
            SELECT b.split, b.row, a.split AS other_split, a.row AS other_row, count(*) AS shared,
                   count(*) FILTER (NOT a.crowded) AS plain, any_value(a.sampled) AS other_sampled,
                   any_value(b.sampled) AS sampled
            FROM held a JOIN held b
              ON a.key = b.key AND a.rank < b.rank AND (NOT a.crowded OR a.rank <= {_LEADERS})
            GROUP BY b.split, b.row, a.split, a.row
            UNION ALL
            SELECT split, row, split, row, count(*), 0, any_value(sampled), any_value(sampled)
            FROM held WHERE crowded GROUP BY split, row
        """

    def combine(self, decisions: pa.Table, documents: Documents) -> pa.Table:
        """Verify the candidate pairs on all shingles of both books and decide which book goes."""
        verified: list[Overlap] = []
        candidates = iter(self._candidates(decisions))
        while batch := list(islice(candidates, _PAIRS_AT_ONCE)):
            places = sorted({place for pair in batch for place in pair})
            read = {place: self._book(place, document) for place, document in documents.read(places)}
            for one, other in batch:
                (left, of_left), (right, of_right) = read[one], read[other]
                shared = np.intersect1d(of_left, of_right, assume_unique=True)
                verified.append(Overlap(left, right, len(shared)))
        dropped = decide(verified, threshold=self.threshold, metric=self.metric)
        rows = [
            {"split": place[0], "row": place[1], "other": other, "score": score}
            for place, (other, score) in sorted(dropped.items())
        ]
        return pa.Table.from_pylist(rows, schema=_RESULT)

    def apply(self, document: Document, decisions: Sequence[Decision]) -> Document | Drop:
        """Drop the book if it was decided so."""
        if decisions:
            return Drop("contained", float(decisions[0]["score"]), str(decisions[0]["other"]))
        return replace(document, metadata={k: v for k, v in document.metadata.items() if k != PRIORITY})

    def _candidates(self, decisions: pa.Table) -> list[tuple[Place, Place]]:
        """Return the pairs whose sampled overlap may come from one above the threshold, in order of place."""
        pair = ["other_split", "other_row", "split", "row"]
        sums = [("shared", "sum"), ("plain", "sum"), ("sampled", "max"), ("other_sampled", "max")]
        table = decisions.group_by(pair).aggregate(sums).sort_by([(name, "ascending") for name in pair])
        left, right = places_of(table, "other_split", "other_row"), places_of(table, "split", "row")
        shared, plain, one, other = (_integers(table[f"{name}_{how}"]) for name, how in sums)
        itself = left == right
        if itself.any():
            say_once(
                f"books: some passages stand in more than {MAX_HOLDERS} books; by those, each book was "
                f"compared with the {_LEADERS} longest only",
                level=logging.INFO,
            )
        crowded = partial(_counts, left[itself], shared[itself])
        chosen = ~itself & (
            self._may_overlap(shared, one, other)
            | self._may_overlap(plain, one - crowded(right), other - crowded(left))
        )
        ends = (
            zip(*(table[name].filter(chosen).to_pylist() for name in names), strict=True)
            for names in (pair[:2], pair[2:])
        )
        return list(zip(*ends, strict=True))

    def _may_overlap(self, shared: _Integers, one: _Integers, other: _Integers) -> npt.NDArray[np.bool_]:
        """Tell for which samples of these sizes, `shared` in both, too large an overlap is possible."""
        smaller = np.minimum(one, other)
        whole = smaller if self.metric == "containment" else one + other - shared
        # Three standard errors of a sample of this size.
        margin = 3 * np.sqrt(self.threshold * (1 - self.threshold) / np.maximum(smaller, 1))
        return (smaller > 0) & (shared / np.maximum(whole, 1) > self.threshold - margin)

    def _book(self, place: Place, document: Document) -> tuple[Book, Hashes]:
        shingles = shingles_of(self._words(document.text))
        return Book(place, document.id, _priority(document), len(shingles)), shingles


def decide(
    overlaps: Sequence[Overlap], *, threshold: float, metric: Metric
) -> dict[Place, tuple[str, float]]:
    """Return the books that go, each with the id of one that stays or went only for a copy, and the score.

    First copies: of two books that contain each other, or whose Jaccard similarity is above the threshold,
    the one of the later input goes, of one input the shorter. Then, for containment, what is inside of a
    longer book goes. A book that went takes no other with it; so the result depends on no order of the pairs.
    """
    dropped: dict[Place, tuple[str, float]] = {}
    if metric == "jaccard":
        copies = [(o, o.jaccard()) for o in overlaps if o.jaccard() > threshold]
        _drop_later(copies, dropped, lambda book: (book.priority, -book.shingles, book.place))
        return dropped
    copies = [(o, o.of_smaller()) for o in overlaps if o.of_larger() > threshold]
    _drop_later(copies, dropped, lambda book: (book.priority, -book.shingles, book.place))
    contained = [(o, o.of_smaller()) for o in overlaps if o.of_smaller() > threshold >= o.of_larger()]
    _drop_later(contained, dropped, lambda book: (-book.shingles, book.priority, book.place))
    return dropped


def _drop_later(
    scored: Sequence[tuple[Overlap, float]],
    dropped: dict[Place, tuple[str, float]],
    rank: Callable[[Book], Any],
) -> None:
    """Go through the books by rank and drop each that overlaps one before it that is still there."""
    before: dict[Place, list[tuple[Book, float]]] = {}
    books: dict[Place, Book] = {}
    for overlap, score in scored:
        first, second = sorted((overlap.left, overlap.right), key=rank)
        before.setdefault(second.place, []).append((first, score))
        books[second.place] = second
    for book in sorted(books.values(), key=rank):
        staying = [pair for pair in before[book.place] if pair[0].place not in dropped]
        if staying and book.place not in dropped:
            other, score = min(staying, key=lambda pair: rank(pair[0]))
            dropped[book.place] = (other.id, score)


def _priority(document: Document) -> int:
    return int(document.metadata.get(PRIORITY, "0"))


def _integers(column: pa.ChunkedArray) -> _Integers:
    return np.asarray(column.to_numpy(), np.int64)


def _counts(known: _Integers, counts: _Integers, wanted: _Integers) -> _Integers:
    """Return the count of each place wanted, 0 for those not among the `known`, which ascend."""
    if not len(known):
        return np.zeros_like(wanted)
    found = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[found] == wanted, counts[found], 0)
