"""One site, or a part of its questions: a document for every question with its answers.

Entry point: `make_reader`. The text of a document is the thread as JSON, bodies still HTML;
`criadero.corpus.sources.stackexchange.clean` makes text of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from criadero.corpus.document import BadRecord, Document
from criadero.corpus.engine.stage import Reader, Split
from criadero.corpus.sources.stackexchange.dump import Site, parse_posts
from criadero.corpus.sources.stackexchange.posts import Row
from criadero.corpus.sources.stackexchange.threads import Part, Thread, join_threads, to_json


def make_reader(*, source: str, memory_bytes: int, scratch: str | None) -> Reader:
    """Return the function that reads the site of a split.

    Args:
        source: the name the documents carry.
        memory_bytes: text of posts that is held before it is sorted and written to disk.
        scratch: folder for a temporary folder about as large as Posts.xml; default the system's.
    """

    def read(split: Split) -> Iterator[Document | BadRecord]:
        site = Site(str(split.parts["site"]), Path(split.path))
        part = Part(split.parts["remainder"], split.parts["divisor"])

        def read_rows(on_row: Callable[[Row], None], on_bad: Callable[[BadRecord], None]) -> None:
            parse_posts(site, on_row=on_row, on_bad=on_bad)

        with tempfile.TemporaryDirectory(prefix="stackexchange-", dir=scratch) as folder:
            threads = join_threads(
                read_rows, name=site.name, folder=Path(folder), memory_bytes=memory_bytes, part=part
            )
            for thread in threads:
                yield thread if isinstance(thread, BadRecord) else _document(thread, site.name, source)

    return read


def _document(thread: Thread, site: str, source: str) -> Document:
    question, answers = thread.question, thread.answers
    licences = {post.licence for post in (question, *answers) if post.licence}
    metadata = {
        "site": site,
        "question_id": str(question.id),
        "answer_ids": ",".join(str(answer.id) for answer in answers),
        "title": thread.title,
        "tags": thread.tags,
        "date": question.date,
        "licence": ", ".join(sorted(licences)),
        "url": f"https://{site}/q/{question.id}",
    }
    known = {key: value for key, value in metadata.items() if value}
    return Document(f"{site}:{question.id}", to_json(thread), source, known)
