"""Makers of the open corpus: each turns the members of packages into the files of one source.

`criadero.corpus.open_corpus` lists them. A maker takes the archives, patterns of members and the folder to
write into; the same archives give the same bytes.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from criadero.corpus.packages import read_members
from criadero.errors import DataError

Maker: TypeAlias = Callable[[Sequence[Path], Sequence[str], Path], None]

_FILE_BYTES = 16_000_000  # of JSONL, so that several workers have something to read
_POEM_LINES = 200


def archive_itself(archives: Sequence[Path], _members: Sequence[str], folder: Path) -> None:
    """Keep whole archives."""
    for archive in archives:
        shutil.copyfile(archive, folder / archive.name)


def same_files(archives: Sequence[Path], members: Sequence[str], folder: Path) -> None:
    """Keep members as they are."""
    for name, content in _contents(archives, members):
        (folder / Path(name).name).write_bytes(content)


def plain_texts(archives: Sequence[Path], members: Sequence[str], folder: Path) -> None:
    """Make one document of each text, gzipped or not."""
    contents = ((Path(name).name, content) for name, content in _contents(archives, members))
    opened = (
        (name, gzip.decompress(content) if name.endswith(".gz") else content) for name, content in contents
    )
    _write(folder, ((name.removesuffix(".gz"), content.decode()) for name, content in opened))


def brown(archives: Sequence[Path], members: Sequence[str], folder: Path) -> None:
    """Make one document of each text of the Brown corpus, without the tag behind every word."""
    contents = ((Path(name).name, content.decode()) for name, content in _contents(archives, members))
    _write(folder, ((name, _untagged(text)) for name, text in contents))


def conversations(archives: Sequence[Path], members: Sequence[str], folder: Path) -> None:
    """Make one document of each conversation: a paragraph for each turn, in turn with a dash."""
    [(_, content)] = _contents(archives, members)
    _write(folder, ((key, _turns(talk["messages"])) for key, talk in json.loads(content).items()))


def poems(archives: Sequence[Path], members: Sequence[str], folder: Path) -> None:
    """Make one document of every 200 lines of verse."""
    [(_, content)] = _contents(archives, members)
    lines = _first_text_column(content)
    starts = range(0, len(lines), _POEM_LINES)
    _write(folder, ((f"line-{start}", "\n".join(lines[start : start + _POEM_LINES])) for start in starts))


def warc(archives: Sequence[Path], members: Sequence[str], folder: Path) -> None:
    """Put web pages into one WARC file, as a crawler would have."""
    with (folder / "pages.warc.gz").open("wb") as out:
        for name, content in _contents(archives, members):
            out.write(gzip.compress(_response(f"http://localhost/{name}", content), 6, mtime=0))


def _contents(archives: Sequence[Path], members: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for archive in archives:
        found = False
        for name, content in read_members(archive, *members):
            found = True
            yield name, content
        if not found:
            raise DataError(f"`{archive.name}` has none of {', '.join(members)}")


def _write(folder: Path, documents: Iterable[tuple[str, str]]) -> None:
    """Write documents as JSONL, in files of about 16 MB."""
    lines: list[bytes] = []
    number = size_bytes = 0
    for key, text in documents:
        lines.append(json.dumps({"id": key, "text": text}, ensure_ascii=False).encode() + b"\n")
        size_bytes += len(lines[-1])
        if size_bytes >= _FILE_BYTES:
            (folder / f"part-{number:05}.jsonl").write_bytes(b"".join(lines))
            lines, size_bytes, number = [], 0, number + 1
    if lines:
        (folder / f"part-{number:05}.jsonl").write_bytes(b"".join(lines))


def _untagged(text: str) -> str:
    """Turn `The/at jury/nn` into `The jury`; a line of the original is a sentence."""
    sentences = (
        " ".join(word.rpartition("/")[0] or word for word in line.split()) for line in text.splitlines()
    )
    return "\n".join(sentence for sentence in sentences if sentence)


def _turns(messages: Sequence[Sequence[dict[str, str]]]) -> str:
    return "\n\n".join("- " + "\n".join(message["text"] for message in turn) for turn in messages)


def _response(url: str, body: bytes) -> bytes:
    """Return one WARC record (ISO 28500) with an HTTP response."""
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + body
    head = (
        "WARC/1.0\r\nWARC-Type: response\r\n"
        f"WARC-Target-URI: {url}\r\nWARC-Date: 2023-01-01T00:00:00Z\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n"
    )
    return head.encode() + http + b"\r\n\r\n"


class _Inert:
    """Stands for any class of pandas in a pickle: keeps what it is given, does nothing."""

    state: Any = None

    def __new__(cls, *_arguments: object) -> _Inert:
        return object.__new__(cls)

    def __setstate__(self, state: object) -> None:
        self.state = state


class _TableUnpickler(pickle.Unpickler):
    """Reads arrays out of a pickled table, without pandas and without running anything the pickle names."""

    def find_class(self, module: str, name: str) -> Any:
        import numpy as np

        reconstruct = np.empty(0).__reduce__()[0]
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): reconstruct,  # as numpy 1 names it
            ("numpy._core.multiarray", "_reconstruct"): reconstruct,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("builtins", "slice"): slice,
        }
        if module.startswith("pandas.core."):
            return _Inert
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed here")
        return allowed[module, name]


def _first_text_column(content: bytes) -> list[str]:
    """Return the first column of text of a gzipped pickle of a pandas table.

    Raises:
        DataError: the pickle names anything but tables and arrays, or has no text.
    """
    try:
        with gzip.open(io.BytesIO(content)) as stream:
            table = _TableUnpickler(stream).load()
        blocks = table.state["_data"].state[1]
        [texts] = [block for block in blocks if block.dtype == object]
        lines: list[str] = texts[0].tolist()
    except (
        pickle.UnpicklingError,
        EOFError,
        OSError,
        AttributeError,
        TypeError,
        KeyError,
        ValueError,
    ) as problem:
        raise DataError(f"the table of a package cannot be read: {problem}") from problem
    return lines
