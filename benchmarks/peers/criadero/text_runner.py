"""criadero's text steps behind the questions its peers answer: the C4 cleaning and the MinHash keys."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

from criadero.corpus.document import Document


def c4_filter() -> Callable[[str], bool]:
    """Return C4's cleaning of one page."""
    from criadero.corpus.sources.c4.clean import make_clean

    step = make_clean()
    return lambda text: isinstance(step(Document("0", text, "web")), Document)


def minhash() -> Callable[[str], bool]:
    """Return a function that computes signature and keys, 14 bands of 8 over 5-word shingles."""
    from criadero.corpus.dedup.minhash import MinHash, MinHashConfig

    step = MinHash(MinHashConfig())
    return lambda text: len(step.emit(Document("0", text, "web"))["key"]) > 0


STEPS = {"c4_filter": c4_filter, "minhash": minhash}
VERSIONS = {name: version(name) for name in ("numpy",)}
