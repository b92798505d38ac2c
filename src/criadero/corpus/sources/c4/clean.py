"""C4's cleaning of one page: which lines stay, and which pages go because of one line.

Entry point: `make_clean`. Constants and the order of the rules are those of the code that made C4
(TensorFlow Datasets, text/c4_utils.py `clean_page`): five words and three sentences, words counted after
citation marks are gone, a closing quotation mark ends a line and an apostrophe does not. The paper on arXiv
and its recreations name other numbers. Cheap tests come first; what is decided is the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from criadero.corpus.document import Document, Drop
from criadero.corpus.engine.stage import DocumentFunction
from criadero.corpus.sources.c4 import sentences

MIN_WORDS = 5
MIN_SENTENCES = 3
MAX_WORD_CHARACTERS = 1000
END_MARKS = (".", "?", "!", '"')
POLICY = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)

# `[]` too: the code of record has `\d*`.
_CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
# Only a line that ends so can end in an end mark once its citation marks are gone.
_LAST_CHARACTERS = frozenset("".join(END_MARKS) + "]")
_SUSPECT = ("lorem ipsum", "javascript", "{", *POLICY)


def make_clean() -> DocumentFunction:
    """Return the function that cleans a page.

    Drops `lorem_ipsum`, `curly_bracket`, and `too_few_sentences` with their number as score.
    """
    return clean


def clean(document: Document) -> Document | Drop:
    """Keep the lines of a page that are sentences, or drop the page."""
    lines = list(_sentence_lines(document.text.splitlines()))
    lowered = "\n".join(lines).lower()
    if any(word in lowered for word in _SUSPECT):
        kept = _without_notices(lines)
        if isinstance(kept, Drop):
            return kept
        lines = kept
    # Every line has a sentence.
    if len(lines) < MIN_SENTENCES:
        found = sum(sentences.count(line) for line in lines)
        if found < MIN_SENTENCES:
            return Drop("too_few_sentences", score=found)
    return document.with_text("\n".join(lines).strip())


def _sentence_lines(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines without citation marks that end as a sentence does and have enough words."""
    for raw in lines:
        line = raw.strip()
        if not line or line[-1] not in _LAST_CHARACTERS or _has_long_word(line):
            continue
        if "[" in line:
            line = _CITATION.sub("", line)
        if not line.endswith(END_MARKS) or line.endswith("..."):
            continue
        if len(line.split(None, MIN_WORDS - 1)) >= MIN_WORDS:
            yield line


def _has_long_word(line: str) -> bool:
    return len(line) > MAX_WORD_CHARACTERS and any(len(word) > MAX_WORD_CHARACTERS for word in line.split())


def _without_notices(lines: Iterable[str]) -> list[str] | Drop:
    """Drop lines about JavaScript and policies; a filler text or a curly bracket costs the page."""
    kept = []
    for line in lines:
        lowered = line.lower()
        if "lorem ipsum" in lowered:
            return Drop("lorem_ipsum")
        if "javascript" in lowered:
            continue
        if "{" in line:
            return Drop("curly_bracket")
        if not any(phrase in lowered for phrase in POLICY):
            kept.append(line)
    return kept
