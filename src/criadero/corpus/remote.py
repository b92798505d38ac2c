"""Files of a crawl over https or s3, downloaded into a folder, whole or resumable.

Entry point: `download(url, folder)`. Bytes go to a `.part` file; after a cut connection or a kill the next
attempt asks for the rest only, as long as the server's file is the same (size and ETag). The final name
appears when all bytes are there. Redirects lead neither to private addresses nor away from https.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import ipaddress
import logging
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

from criadero import files
from criadero.corpus.extra import require_extra
from criadero.errors import DataError

logger = logging.getLogger("criadero")

MAX_FILE_BYTES = 1 << 34
_BLOCK_BYTES = 1 << 20
_TOO_MANY = 429
_OK, _PARTIAL, _UNSATISFIABLE = 200, 206, 416
_GONE = (404, 410)


class NotThere(DataError):
    """The server says there is no such file."""


@dataclass(frozen=True)
class Patience:
    """How long to try: the wait doubles after each attempt that brought nothing, up to `longest_seconds`."""

    attempts: int = 8
    wait_seconds: float = 1.0
    longest_seconds: float = 60.0
    timeout_seconds: float = 60.0


@dataclass(frozen=True)
class _Rest:
    """The bytes of a file from `start` on, as the server sends them."""

    stream: Any
    start: int
    size_bytes: int | None
    etag: str


def is_url(path: str) -> bool:
    """Whether `path` names something to download."""
    return path.startswith(("http://", "https://", "s3://"))


def local_path(url: str, folder: Path) -> Path:
    """Return where `download` puts a file: its own name after a hash of the whole URL."""
    name = quote(urlsplit(url).path.rsplit("/", 1)[-1], safe="")[-150:]
    return folder / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name}"


def download(
    url: str, folder: Path, *, patience: Patience | None = None, endpoint: str | None = None
) -> Path:
    """Return the local copy of a file, downloading what is missing of it.

    Args:
        url: `https://`, `http://` or `s3://` (read anonymously; needs the library s3fs).
        folder: is made if missing; several processes may share it.
        patience: attempts and waits.
        endpoint: of an S3 service other than Amazon's.

    Raises:
        NotThere: the server has no such file.
        DataError: it could not be had within the attempts, is too large, or its URL is not to be followed.
        ResourceError: the disk has no room for it.
    """
    patience = patience or Patience()
    final = local_path(url, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(final):
        if not final.exists():
            _complete(url, final, patience, endpoint)
    return final


def _complete(url: str, final: Path, patience: Patience, endpoint: str | None) -> None:
    part = _Part(final)
    failures, wait = 0, patience.wait_seconds
    while True:
        before = part.size_bytes()
        try:
            with _open(url, part, patience.timeout_seconds, endpoint) as rest:
                part.append(url, rest)
        except (OSError, http.client.HTTPException) as problem:
            reason = str(problem) or type(problem).__name__
        else:
            if part.is_whole():
                part.finish()
                return
            reason = f"the connection ended after {part.size_bytes():,} bytes"
        failures, wait = (
            (0, patience.wait_seconds) if part.size_bytes() > before else (failures + 1, wait * 2)
        )
        if failures >= patience.attempts:
            raise DataError(
                f"{url} could not be downloaded in {failures} attempts: {reason}",
                hint="run the same command again: it goes on where this one stopped",
            )
        logger.warning("%s: %s; trying again", url, reason)
        time.sleep(min(wait, patience.longest_seconds))


class _Part:
    """The bytes that are there so far, with size and ETag of the file they are of."""

    def __init__(self, final: Path) -> None:
        self._final = final
        self._path = final.with_name(final.name + ".part")
        self._notes = final.with_name(final.name + ".part.json")
        notes = files.read_json(self._notes) if self._notes.exists() else {}
        self.etag: str = notes.get("etag", "")
        self.total_bytes: int | None = notes.get("size_bytes")
        if not notes:
            self._path.unlink(missing_ok=True)

    def size_bytes(self) -> int:
        return self._path.stat().st_size if self._path.exists() else 0

    def is_whole(self) -> bool:
        return self.total_bytes is None or self.size_bytes() == self.total_bytes

    def append(self, url: str, rest: _Rest) -> None:
        """Add bytes; those of another file than before replace what is there."""
        if rest.size_bytes is not None and rest.size_bytes > MAX_FILE_BYTES:
            raise DataError(f"{url} has {files.format_bytes(rest.size_bytes)}, too much for one file")
        same = (rest.etag, rest.size_bytes) == (self.etag, self.total_bytes)
        start = rest.start if same else 0
        if start != rest.start:
            self.forget()
            raise OSError("the file on the server has changed")
        if not same:
            self.etag, self.total_bytes = rest.etag, rest.size_bytes
            self._path.unlink(missing_ok=True)
            files.write_json(self._notes, {"etag": rest.etag, "size_bytes": rest.size_bytes})
        missing = (rest.size_bytes or 0) - start
        files.require_free_bytes(self._final.parent, missing, purpose=f"downloading {url}")
        with self._path.open("r+b" if self._path.exists() else "wb") as stream:
            stream.truncate(start)
            stream.seek(start)
            _copy(url, rest.stream, stream)

    def forget(self) -> None:
        self.etag, self.total_bytes = "", None
        self._path.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)

    def finish(self) -> None:
        files.fsync(self._path)
        self._path.replace(self._final)
        files.fsync(self._final.parent)
        self._notes.unlink(missing_ok=True)


def _copy(url: str, source: Any, target: IO[bytes]) -> None:
    while block := source.read(_BLOCK_BYTES):
        target.write(block)
        if target.tell() > MAX_FILE_BYTES:
            raise DataError(
                f"{url} has more than {files.format_bytes(MAX_FILE_BYTES)}, too much for one file"
            )


@contextmanager
def _alone(final: Path) -> Iterator[None]:
    with final.with_name(final.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _open(url: str, part: _Part, timeout_seconds: float, endpoint: str | None) -> Iterator[_Rest]:
    if url.startswith("s3://"):
        with _open_s3(url, part, endpoint) as rest:
            yield rest
    else:
        with _open_http(url, part, timeout_seconds) as rest:
            yield rest


@contextmanager
def _open_http(url: str, part: _Part, timeout_seconds: float) -> Iterator[_Rest]:
    start = part.size_bytes()
    headers = {"User-Agent": "criadero", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if part.etag and not part.etag.startswith("W/"):
            headers["If-Range"] = part.etag
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.build_opener(_Redirects).open(request, timeout=timeout_seconds) as response:
            etag = response.headers.get("ETag", "")
            if response.status == _PARTIAL:
                first, total = _content_range(response.headers.get("Content-Range", ""))
                yield _Rest(response, first, total, etag)
            else:
                length = response.headers.get("Content-Length")
                yield _Rest(response, 0, int(length) if length else None, etag)
    except urllib.error.HTTPError as problem:
        problem.close()
        _refuse(url, problem, part)


def _refuse(url: str, problem: urllib.error.HTTPError, part: _Part) -> None:
    """Tell what can be tried again, as OSError, from what cannot."""
    if problem.code == _UNSATISFIABLE:
        part.forget()
    elif problem.code in _GONE:
        raise NotThere(f"{url}: the server answers {problem.code} {problem.reason}") from None
    elif problem.code < 500 and problem.code != _TOO_MANY:
        raise DataError(f"{url}: the server answers {problem.code} {problem.reason}") from None
    raise OSError(f"the server answers {problem.code} {problem.reason}") from None


def _content_range(value: str) -> tuple[int, int | None]:
    """Read `bytes 100-199/200`."""
    try:
        span, _, total = value.removeprefix("bytes ").partition("/")
        return int(span.split("-")[0]), None if total == "*" else int(total)
    except ValueError:
        raise OSError(f"the server sends an unreadable Content-Range {value!r}") from None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to public addresses only, and from https to https only."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if new.scheme not in ("https", old.scheme):
            raise DataError(f"{req.full_url} redirects to {newurl}, which is not https")
        if new.hostname != old.hostname and not _is_public(new.hostname or ""):
            raise DataError(f"{req.full_url} redirects to {newurl}, which is a private address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_public(host: str) -> bool:
    addresses = {found[4][0] for found in socket.getaddrinfo(host, None)}
    return all(ipaddress.ip_address(address).is_global for address in addresses)


@contextmanager
def _open_s3(url: str, part: _Part, endpoint: str | None) -> Iterator[_Rest]:
    with require_extra("reading s3://"):
        import fsspec
    options: dict[str, Any] = {"anon": True}
    if endpoint:
        options["client_kwargs"] = {"endpoint_url": endpoint}
    try:
        system = fsspec.filesystem("s3", **options)
        about = system.info(url)
        stream = system.open(url, "rb")
    except ImportError:
        raise DataError(
            f"{url} cannot be read: the library s3fs is not installed",
            hint="pip install s3fs, or read the same files over https",
        ) from None
    except FileNotFoundError:
        raise NotThere(f"{url} does not exist") from None
    with stream:
        start = part.size_bytes()
        rest = _Rest(stream, start, about.get("size"), str(about.get("ETag", "")))
        if (rest.etag, rest.size_bytes) != (part.etag, part.total_bytes):
            rest = _Rest(stream, 0, rest.size_bytes, rest.etag)
        stream.seek(rest.start)
        yield rest
