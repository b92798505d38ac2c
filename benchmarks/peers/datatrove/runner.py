"""datatrove's own steps on one text, as its pipelines call them and with the settings its examples use.

`C4QualityFilter` with its defaults. `MinhashDedupSignature` with 64-bit hashes, 14 buckets of 8, 5-word
shingles, as in the example that made FineWeb; only shingles and signature are timed, no files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.metadata import version

from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.pipeline.filters import C4QualityFilter
from datatrove.utils.hashing import HashConfig


def c4_filter() -> Callable[[str], bool]:
    """Return the filter; it edits the document and says True, or False and why."""
    step = C4QualityFilter()
    return lambda text: step.filter(Document(text=text, id="0")) is True


def minhash() -> Callable[[str], bool]:
    """Return a function that computes one signature."""
    config = MinhashConfig(
        n_grams=5, num_buckets=14, hashes_per_bucket=8, hash_config=HashConfig(precision=64)
    )
    step = MinhashDedupSignature(output_folder=tempfile.mkdtemp(), config=config)

    def signed(text: str) -> bool:
        shingles = step.get_shingles(text)  # none in a text of few words, which datatrove's own loop skips
        return bool(shingles.size and step.get_signature(shingles))

    return signed


STEPS = {"c4_filter": c4_filter, "minhash": minhash}
VERSIONS = {name: version(name) for name in ("datatrove", "spacy", "numpy", "xxhash")}
