"""Pages with a word of a list are dropped, as C4 did with an English list of obscene words.

Entry point: `make_bad_words`. The list is a file, one word or phrase a line; C4 took the English one of
"List of Dirty, Naughty, Obscene, and Otherwise Bad Words" at commit 25e679f, which is not in this project.
"""

from __future__ import annotations

import re
from pathlib import Path

from criadero.corpus.document import Document, Drop
from criadero.corpus.engine.stage import DocumentFunction
from criadero.errors import DataError

MAX_LIST_BYTES = 1 << 20
_WORD = re.compile(r"\w+")


def make_bad_words(*, path: str) -> DocumentFunction:
    """Return the function that drops pages with a word of the list in `path`, as `bad_word`.

    Raises:
        DataError: the file is missing, too large, not UTF-8 or has no words.
    """
    return bad_words_filter(read_list(Path(path)))


def bad_words_filter(words: frozenset[str]) -> DocumentFunction:
    """Return the function that drops pages in which an entry stands between characters that no word has.

    Entries of letters alone are looked up among a page's words; others, with spaces or marks, are searched.
    """
    single = frozenset(word for word in words if _WORD.fullmatch(word))
    phrases = {word: re.compile(rf"(?:\W|^){re.escape(word)}(?:\W|$)") for word in sorted(words - single)}

    def keep(document: Document) -> Document | Drop:
        text = document.text.lower()
        found = [*single.intersection(_WORD.findall(text))]
        found += [word for word, pattern in phrases.items() if word in text and pattern.search(text)]
        return Drop("bad_word", detail=min(found)) if found else document

    return keep


def read_list(path: Path) -> frozenset[str]:
    """Return the entries of a list, lowercased as the pages they are compared with.

    Raises:
        DataError: the file is missing, too large, not UTF-8 or has no words.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_LIST_BYTES + 1)
        text = data.decode()
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(f"the list of bad words `{path}` cannot be read: {problem}") from None
    words = frozenset(line.strip().lower() for line in text.splitlines() if line.strip())
    if not words or len(data) > MAX_LIST_BYTES:
        raise DataError(
            f"the list of bad words `{path}` has {len(words):,} entries in {len(data):,} bytes",
            hint=f"one word or phrase a line, at most {MAX_LIST_BYTES:,} bytes",
        )
    return words
