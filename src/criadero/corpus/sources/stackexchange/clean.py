"""A thread as text: which answers, in which layout.

Entry point: `make_cleaner`, makes a pure function over documents as `read` in this folder yields them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from criadero.corpus.document import Document, Drop
from criadero.corpus.engine.stage import DocumentFunction
from criadero.corpus.sources.stackexchange.body import html_to_text
from criadero.corpus.sources.stackexchange.threads import Post, Thread, from_json

Layout: TypeAlias = Literal["plain", "redpajama", "pile"]


@dataclass(frozen=True)
class _Format:
    """How a layout chooses and joins; `join` gets title, question and answers."""

    join: Callable[[str, str, Sequence[str]], str]
    min_score: int | None = None
    max_answers: int | None = None

    def choose(self, answers: Sequence[Post]) -> list[Post]:
        """Return the answers to print, of those in order."""
        good = [a for a in answers if self.min_score is None or a.score >= self.min_score]
        return good[: self.max_answers]


def make_cleaner(*, layout: Layout, keep_unanswered: bool) -> DocumentFunction:
    """Return the function that makes text of a thread.

    Args:
        layout: `plain` separates title, question and answers by blank lines; `redpajama` writes `Q: ` and
            `A: ` before them; `pile` too, and takes at most three answers, of a score of 3 or more.
        keep_unanswered: whether a question without answers is kept; dropped as `no_answers` if not.
    """
    chosen = _FORMATS[layout]

    def clean(document: Document) -> Document | Drop:
        thread = from_json(document.text)
        answers = chosen.choose(thread.answers)
        if not answers and not keep_unanswered:
            return Drop("no_answers")
        text = _text(thread, answers, chosen)
        if not text.strip():
            return Drop("empty")
        kept = document.with_text(text)
        if len(answers) == len(thread.answers):
            return kept
        return kept.with_metadata(answer_ids=",".join(str(answer.id) for answer in answers))

    return clean


def _text(thread: Thread, answers: Sequence[Post], chosen: _Format) -> str:
    title = " ".join(thread.title.split())
    bodies = [html_to_text(answer.html) for answer in answers]
    return chosen.join(title, html_to_text(thread.question.html), [body for body in bodies if body.strip()])


def _plain(title: str, question: str, answers: Sequence[str]) -> str:
    return "\n\n".join(part for part in (title, question, *answers) if part)


def _redpajama(title: str, question: str, answers: Sequence[str]) -> str:
    asked = " ".join(part for part in (title, question) if part)
    return "\n".join([f"Q: {asked}", *(f"A: {answer}" for answer in answers)])


def _pile(title: str, question: str, answers: Sequence[str]) -> str:
    asked = "\n\n".join(part for part in ("Q:", title, question) if part)
    return "\n\n".join([asked, *(f"A:\n\n{answer}" for answer in answers)])


_FORMATS: Mapping[Layout, _Format] = {
    "plain": _Format(_plain),
    "redpajama": _Format(_redpajama),
    "pile": _Format(_pile, min_score=3, max_answers=3),
}
