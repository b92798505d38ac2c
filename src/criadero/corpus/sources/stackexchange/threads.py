"""Questions joined with their answers in bounded memory: an external merge sort by question id.

Entry point: `join_threads`. Rows come in any order, an answer perhaps before its question and far from it.
They are gathered up to a number of bytes, sorted, written as one run to a scratch folder; the runs are then
merged, so that the posts of a question are neighbours. Nothing depends on how many answers a question has or
how ids are spread, and the order of threads is that of question ids for any size of memory.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson

from criadero.corpus.document import BadRecord
from criadero.corpus.sources.stackexchange.posts import Row

MAX_THREAD_BYTES = 1 << 26
# Files open at once while merging.
_FAN_IN = 128
# What a row costs beside its text: two tuples, integers, the list's slot.
_ROW_OVERHEAD_BYTES = 250
_QUESTION, _ANSWER, _BAD = 0, 1, 2
_NO_QUESTION = -1

_Line = tuple[int, int, bytes]  # question id, question or answer or bad, the post or record as JSON


@dataclass(frozen=True, slots=True)
class Post:
    """A question or an answer.

    Attributes:
        id: of the post; ids of questions and answers are never the same.
        score: votes up less votes down.
        date: ISO 8601, as the dump has it.
        licence: such as `CC BY-SA 4.0`, empty in dumps without.
        html: body as the dump has it.
        accepted: id of the accepted answer of a question.
    """

    id: int
    score: int
    date: str
    licence: str
    html: str
    accepted: int | None = None


@dataclass(frozen=True, slots=True)
class Thread:
    """A question and its answers, the best first.

    Attributes:
        title: of the question; empty where the dump has none.
        tags: as the dump has them, `<python><list>` or `|python|list|`.
        question: the question.
        answers: by score, the accepted one first among equals, then by date and id.
    """

    title: str
    tags: str
    question: Post
    answers: tuple[Post, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """The questions whose id has a remainder, of a site too large for one task."""

    remainder: int = 0
    divisor: int = 1

    def has(self, question_id: int | None) -> bool:
        """Tell whether a question is in this part; None is in the first."""
        return (question_id or 0) % self.divisor == self.remainder


@dataclass
class _Runs:
    """Sorted runs of lines, on disk but for the last."""

    folder: Path
    memory_bytes: int
    lines: list[_Line] = field(default_factory=list)
    held_bytes: int = 0
    paths: list[Path] = field(default_factory=list)
    written: int = 0

    def add(self, line: _Line) -> None:
        self.lines.append(line)
        self.held_bytes += len(line[2]) + _ROW_OVERHEAD_BYTES
        if self.held_bytes > self.memory_bytes:
            self.lines.sort(key=_order)
            self.paths.append(self._write(iter(self.lines)))
            self.lines, self.held_bytes = [], 0

    def merged(self, stack: ExitStack) -> Iterator[_Line]:
        """Return all lines in order; files stay open as long as `stack`."""
        while len(self.paths) > _FAN_IN:
            groups = [self.paths[at : at + _FAN_IN] for at in range(0, len(self.paths), _FAN_IN)]
            self.paths = [self._merge_group(group) for group in groups]
        self.lines.sort(key=_order)
        return heapq.merge(*(_read_run(path, stack) for path in self.paths), self.lines, key=_order)

    def _merge_group(self, group: list[Path]) -> Path:
        with ExitStack() as stack:
            merged = self._write(heapq.merge(*(_read_run(path, stack) for path in group), key=_order))
        for path in group:
            path.unlink()
        return merged

    def _write(self, lines: Iterator[_Line]) -> Path:
        path = self.folder / f"run-{self.written:06}"
        self.written += 1
        with path.open("wb") as stream:
            for question_id, kind, post in lines:
                stream.write(b"%d %d %b\n" % (question_id, kind, post))
        return path


def join_threads(
    read_rows: Callable[[Callable[[Row], None], Callable[[BadRecord], None]], None],
    *,
    name: str,
    folder: Path,
    memory_bytes: int,
    part: Part = Part(),
) -> Iterator[Thread | BadRecord]:
    """Yield what is bad about single rows, then every question of a part with its answers, by question id.

    Bad are also answers without a question (`orphan_answer`), second posts of one id (`duplicate_id`) and
    answers beyond what a thread may hold (`oversized_thread`).

    Args:
        read_rows: calls its first function with the attributes of each row, its second with bad records.
        name: of the site, the start of the ids of bad records.
        folder: an empty folder to write runs to.
        memory_bytes: how much text of posts is held before it is written to `folder`.
        part: of the questions; what is bad about no question in particular is in the first.
    """
    runs = _Runs(folder, memory_bytes)

    def take(row: Row) -> None:
        kind = row.get("PostTypeId")
        if kind in {"1", "2"} and part.has(_whole_number(row.get("Id" if kind == "1" else "ParentId"))):
            runs.add(_line(row, name))

    def note(bad: BadRecord) -> None:
        if part.has(None):
            runs.add(_bad_line(bad))

    read_rows(take, note)
    with ExitStack() as stack:
        for question_id, lines in groupby(runs.merged(stack), key=_question_id):
            if question_id == _NO_QUESTION:
                yield from (BadRecord(**orjson.loads(line)) for _, _, line in lines)
            else:
                yield from _thread(lines, name)


def to_json(thread: Thread) -> str:
    """Return the thread as JSON, the text a document of it carries until its HTML is made text."""
    return orjson.dumps(asdict(thread)).decode()


def from_json(text: str) -> Thread:
    """Return the thread that `to_json` wrote."""
    values: dict[str, Any] = orjson.loads(text)
    question, answers = Post(**values["question"]), tuple(Post(**answer) for answer in values["answers"])
    return Thread(values["title"], values["tags"], question, answers)


def _order(line: _Line) -> tuple[int, int]:
    return line[0], line[1]


def _question_id(line: _Line) -> int:
    return line[0]


def _read_run(path: Path, stack: ExitStack) -> Iterator[_Line]:
    stream = stack.enter_context(path.open("rb"))
    for line in stream:
        question_id, kind, post = line.split(b" ", 2)
        yield int(question_id), int(kind), post.removesuffix(b"\n")


def _bad_line(bad: BadRecord) -> _Line:
    return _NO_QUESTION, _BAD, orjson.dumps(asdict(bad))


def _line(row: Row, name: str) -> _Line:
    post_id = _whole_number(row.get("Id"))
    score = _whole_number(row.get("Score", "0"))
    if post_id is None or post_id < 0 or score is None:
        detail = f"Id {row.get('Id', '')[:40]!r}, Score {row.get('Score', '')[:40]!r}"
        return _bad_line(BadRecord(f"{name}:{row.get('Id', '')[:40]}", "bad_row", detail))
    post: dict[str, Any] = {
        "id": post_id,
        "score": score,
        "date": row.get("CreationDate", ""),
        "licence": row.get("ContentLicense", ""),
        "html": row.get("Body", ""),
    }
    if row["PostTypeId"] == "1":
        post["accepted"] = _whole_number(row.get("AcceptedAnswerId"))
        question = {"title": row.get("Title", ""), "tags": row.get("Tags", ""), "post": post}
        return post_id, _QUESTION, orjson.dumps(question)
    parent_id = _whole_number(row.get("ParentId"))
    if parent_id is None or parent_id < 0:
        return _bad_line(BadRecord(f"{name}:{post_id}", "orphan_answer", "an answer without ParentId"))
    return parent_id, _ANSWER, orjson.dumps(post)


def _whole_number(text: str | None) -> int | None:
    """Return the integer that a database column of 64 bits may hold."""
    if text is None:
        return None
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) <= 18 else None


def _thread(lines: Iterator[_Line], name: str) -> Iterator[Thread | BadRecord]:
    """Yield one question with its answers, after what of it is bad."""
    question: dict[str, Any] | None = None
    answers: dict[int, Post] = {}
    size_bytes = 0
    for question_id, kind, line in lines:
        values = orjson.loads(line)
        size_bytes += len(line)
        if kind == _QUESTION:
            if question is None:
                question = values
            else:
                yield BadRecord(f"{name}:{question_id}", "duplicate_id", "a second question of this id")
            continue
        identity = f"{name}:{values['id']}"
        if question is None:
            yield BadRecord(identity, "orphan_answer", f"no question {question_id}")
        elif values["id"] in answers:
            yield BadRecord(identity, "duplicate_id", f"a second answer of this id to question {question_id}")
        elif size_bytes > MAX_THREAD_BYTES:
            yield BadRecord(identity, "oversized_thread", f"question {question_id}: {size_bytes:,} bytes")
        else:
            answers[values["id"]] = Post(**values)
    if question is not None:
        post = Post(**question["post"])
        best_first = sorted(answers.values(), key=lambda a: (-a.score, a.id != post.accepted, a.date, a.id))
        yield Thread(question["title"], question["tags"], post, tuple(best_first))
