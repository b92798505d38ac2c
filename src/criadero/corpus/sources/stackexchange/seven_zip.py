"""The file that py7zr believes to write: what it decompresses goes to a parser, nothing to disk.

Entry point: `FeedFactory`, for `py7zr.SevenZipFile.extract`. Imported only where an archive is read.
"""

from __future__ import annotations

from py7zr.io import Py7zIO, WriterFactory

from criadero.corpus.sources.stackexchange.posts import PostsParser


class Feed(Py7zIO):  # type: ignore[misc]
    """A write-only file.

    Attributes:
        failure: the exception that parsing ended with, which is no fault of the archive.
    """

    def __init__(self, parser: PostsParser) -> None:
        self.failure: Exception | None = None
        self._parser = parser
        self._size_bytes = 0

    def write(self, data: bytes | bytearray) -> int:
        try:
            self._parser.feed(data)
        except Exception as problem:
            self.failure = problem
            raise
        if self._parser.gave_up:
            raise EOFError("the rest of the file is not wanted")
        self._size_bytes += len(data)
        return len(data)

    def read(self, _size: int | None = None) -> bytes:
        return b""

    def seek(self, _offset: int, _whence: int = 0) -> int:
        return 0

    def flush(self) -> None:
        return None

    def size(self) -> int:
        return self._size_bytes


class FeedFactory(WriterFactory):  # type: ignore[misc]
    """Opens the one member that is asked for."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def create(self, _filename: str) -> Feed:
        return self._feed
