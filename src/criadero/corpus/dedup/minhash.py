"""Near-duplicates by MinHash: documents that share most of their word n-grams, across one source.

Entry point: `stage(config)`. A document's signature is the minimum of each of bands x rows hash functions
over its shingles; the rows of one band become one key. Documents that meet under a key are linked, linked
documents form clusters, and of each cluster the first document stays. Two documents of Jaccard similarity s
meet with probability 1 - (1 - s^rows)^bands (Broder 1997; Leskovec, Rajaraman and Ullman, "Mining of Massive
Datasets", 3.4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from criadero.config import Config
from criadero.corpus.dedup.cluster import ROW_BITS, Places, first_of_cluster, places_of
from criadero.corpus.document import Document, Drop
from criadero.corpus.engine.stage import Decision, Documents, Exchange
from criadero.corpus.shingles import Hashes, WordHashes, mix, ngram_hashes, random_hashes

_BLOCK_SHINGLES = 1024  # times 112 hash functions this stays in the cache of a core


class MinHashConfig(Config):
    """How similar documents must be to count as one; the defaults find s = 0.8 with 92 %, s = 0.7 with 56 %.

    Attributes:
        bands: keys per document.
        rows: hash functions per key.
        shingle_words: words per shingle.
        seed: draws the hash functions.
    """

    bands: int = Field(default=14, ge=1, le=1024)
    rows: int = Field(default=8, ge=1, le=64)
    shingle_words: int = Field(default=5, ge=1, le=64)
    seed: int = Field(default=0, ge=0, lt=1 << 32)

    def probability(self, similarity: float) -> float:
        """Return how likely two documents of this Jaccard similarity are linked."""
        return float(1 - (1 - similarity**self.rows) ** self.bands)


def stage(config: MinHashConfig | None = None) -> Exchange:
    """Return the step that drops near-duplicates of earlier documents of its source."""
    return Exchange("near_duplicates", make, settings=(config or MinHashConfig()).model_dump())


def make(**settings: Any) -> MinHash:
    """Return the step with its hash functions drawn."""
    return MinHash(MinHashConfig(**settings))


class MinHash:
    """A `CrossDocument` that keeps the first document of each cluster.

    A dropped document names the one kept; its score is the similarity to the nearest document it was linked
    with, estimated from the share of bands they have in common. A document without a word is never linked.
    """

    schema = pa.schema([("key", pa.uint64())])

    # Both sides of a pair meet under as many keys as they have equal bands, whatever range a key falls in.
    reduce = f"""
        SELECT split, row, (first >> {ROW_BITS})::UINTEGER AS first_split,
               (first & {(1 << ROW_BITS) - 1})::UINTEGER AS first_row, count(*) AS bands
        FROM (SELECT split, row, min((split::UBIGINT << {ROW_BITS}) | row) OVER (PARTITION BY key) AS first
              FROM records)
        WHERE first <> ((split::UBIGINT << {ROW_BITS}) | row)
        GROUP BY split, row, first
    """

    def __init__(self, config: MinHashConfig) -> None:
        self._config = config
        self._word_hashes = WordHashes()
        functions = config.bands * config.rows
        self._multipliers = random_hashes(functions, seed=config.seed)[:, None] | np.uint64(1)
        self._offsets = random_hashes(functions, seed=config.seed + 1)[:, None]
        key_seed = config.seed + 2
        self._key_multipliers = random_hashes(functions, seed=key_seed).reshape(config.bands, config.rows)
        self._key_multipliers |= np.uint64(1)

    def signature(self, text: str) -> Hashes | None:
        """Return the minimum of each hash function over the text's shingles; None without a word."""
        word_hashes = self._word_hashes(text)
        if not len(word_hashes):
            return None
        # A text shorter than a shingle is one shingle, so that only equal ones meet.
        shingles = ngram_hashes(word_hashes, min(self._config.shingle_words, len(word_hashes)))
        lowest = np.full(len(self._multipliers), np.iinfo(np.uint64).max, np.uint64)
        for start in range(0, len(shingles), _BLOCK_SHINGLES):
            hashed = self._multipliers * shingles[start : start + _BLOCK_SHINGLES]
            hashed += self._offsets
            np.minimum(lowest, hashed.min(axis=1), out=lowest)
        return lowest

    def emit(self, document: Document) -> Mapping[str, Sequence[Any]]:
        """Return one key per band; documents with an equal band get an equal key."""
        signature = self.signature(document.text)
        if signature is None:
            return {"key": []}
        bands = signature.reshape(self._key_multipliers.shape) * self._key_multipliers
        keys: Any = mix(bands.sum(axis=1, dtype=np.uint64))
        return {"key": keys}

    def combine(self, decisions: pa.Table, documents: Documents) -> pa.Table:
        """Turn links between pairs into one row per dropped document: what is kept instead, and a score."""
        places, firsts = (
            places_of(decisions, "split", "row"),
            places_of(decisions, "first_split", "first_row"),
        )
        # One pair can come from several ranges of keys; the same bands are then counted together.
        pairs, which = np.unique(np.stack([places, firsts], axis=1), axis=0, return_inverse=True)
        bands = np.bincount(which.reshape(-1), weights=decisions["bands"].to_numpy(), minlength=len(pairs))
        linked, kept = first_of_cluster(pairs[:, 0], pairs[:, 1])
        best = np.zeros(len(linked))
        for end in pairs.T:
            np.maximum.at(best, np.searchsorted(linked, end), bands)
        dropped = linked != kept
        ids = {place: document.id for place, document in documents.read(_unpacked(np.unique(kept)))}
        return pa.table(
            {
                "split": pa.array((linked[dropped] >> ROW_BITS).astype(np.uint32)),
                "row": pa.array((linked[dropped] & ((1 << ROW_BITS) - 1)).astype(np.uint32)),
                "kept": pa.array([ids[place] for place in _unpacked(kept[dropped])], pa.string()),
                "similarity": pa.array((best[dropped] / self._config.bands) ** (1 / self._config.rows)),
            }
        )

    def apply(self, document: Document, decisions: Sequence[Decision]) -> Document | Drop:
        """Drop what has a row."""
        if not decisions:
            return document
        (decision,) = decisions
        return Drop("near_duplicate", score=decision["similarity"], detail=decision["kept"])


def _unpacked(places: Places) -> list[tuple[int, int]]:
    return [(place >> ROW_BITS, place & ((1 << ROW_BITS) - 1)) for place in places.tolist()]
