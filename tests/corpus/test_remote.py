"""Downloads against a local server that cuts, changes, stalls, lies and redirects."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from criadero import files
from criadero.corpus import remote
from criadero.corpus.remote import NotThere, Patience, download, local_path
from criadero.errors import DataError, ResourceError

DATA = random.Random(0).randbytes(300_000)
QUICK = Patience(attempts=3, wait_seconds=0.001, timeout_seconds=2)


class Crawl(ThreadingHTTPServer):
    """Serves DATA at /data; attributes say how it misbehaves."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data = DATA
        self.cut_after: int | None = None  # bytes of each answer
        self.ranges = True
        self.statuses: list[int] = []  # of the first answers
        self.redirect: str | None = None
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/data"


class Handler(BaseHTTPRequestHandler):
    server: Crawl

    def do_GET(self) -> None:
        crawl = self.server
        crawl.asked.append(self.headers.get("Range"))
        etag = f'"{hashlib.md5(crawl.data).hexdigest()}"'
        status = crawl.statuses.pop(0) if crawl.statuses else 200
        if crawl.redirect and self.path == "/data":
            self.send_response(302)
            self.send_header("Location", crawl.redirect)
            self.end_headers()
            return
        if status != 200:
            self.send_error(status)
            return
        start = 0
        wanted = self.headers.get("Range")
        if crawl.ranges and wanted and self.headers.get("If-Range", etag) == etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        if start >= len(crawl.data):
            self.send_error(416)
            return
        body = crawl.data[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(crawl.data) - 1}/{len(crawl.data)}")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", etag)
        self.end_headers()
        self.wfile.write(body[: crawl.cut_after])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def crawl() -> Iterator[Crawl]:
    server = Crawl()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def leftovers(folder: Path) -> list[str]:
    return [f.name for f in folder.iterdir() if ".part" in f.name]


def test_a_file_arrives_whole_and_is_not_asked_for_again(crawl, tmp_path):
    path = download(crawl.url, tmp_path / "new", patience=QUICK)
    assert path.read_bytes() == DATA
    assert download(crawl.url, tmp_path / "new", patience=QUICK) == path
    assert crawl.asked == [None]
    assert leftovers(tmp_path / "new") == []


def test_a_connection_that_is_cut_goes_on_where_it_stopped(crawl, tmp_path):
    crawl.cut_after = 70_000
    assert download(crawl.url, tmp_path, patience=QUICK).read_bytes() == DATA
    assert crawl.asked == [None, *(f"bytes={n}-" for n in (70_000, 140_000, 210_000, 280_000))]


def test_a_killed_download_goes_on_in_the_next_process(crawl, tmp_path, monkeypatch):
    def killed(url, source, target):
        target.write(source.read(100_000))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(remote, "_copy", killed)
        with pytest.raises(KeyboardInterrupt):
            download(crawl.url, tmp_path, patience=QUICK)
    assert not local_path(crawl.url, tmp_path).exists()
    assert download(crawl.url, tmp_path, patience=QUICK).read_bytes() == DATA
    assert crawl.asked == [None, "bytes=100000-"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_that_changed_between_attempts_is_not_mixed(crawl, tmp_path, ranges):
    crawl.cut_after = 70_000
    with pytest.raises(DataError):
        download(crawl.url, tmp_path, patience=Patience(attempts=0, wait_seconds=0))
    crawl.cut_after, crawl.ranges, crawl.data = None, ranges, DATA[::-1]
    assert download(crawl.url, tmp_path, patience=QUICK).read_bytes() == DATA[::-1]


def test_a_server_without_ranges_starts_over(crawl, tmp_path):
    crawl.cut_after = 70_000
    with pytest.raises(DataError):
        download(crawl.url, tmp_path, patience=Patience(attempts=0, wait_seconds=0))
    crawl.cut_after, crawl.ranges = None, False
    assert download(crawl.url, tmp_path, patience=QUICK).read_bytes() == DATA


def test_a_busy_server_is_asked_again(crawl, tmp_path):
    crawl.statuses = [503, 429]
    assert download(crawl.url, tmp_path, patience=QUICK).read_bytes() == DATA


def test_a_server_that_never_recovers_is_an_error_with_the_reason(crawl, tmp_path):
    crawl.statuses = [503] * 10
    with pytest.raises(DataError, match=r"3 attempts: the server answers 503"):
        download(crawl.url, tmp_path, patience=QUICK)
    assert len(crawl.asked) == 3


def test_a_missing_file_and_a_forbidden_one_are_not_asked_for_again(crawl, tmp_path):
    crawl.statuses = [404, 403]
    with pytest.raises(NotThere, match="404"):
        download(crawl.url, tmp_path, patience=QUICK)
    with pytest.raises(DataError, match="403"):
        download(crawl.url, tmp_path, patience=QUICK)
    assert len(crawl.asked) == 2


@pytest.mark.parametrize(
    "target",
    ["http://localhost/x", "http://10.0.0.1/x", "http://169.254.169.254/x", "http://[::1]/", "ftp://h/x"],
)
def test_redirects_to_private_addresses_are_not_followed(crawl, tmp_path, target):
    crawl.redirect = target
    with pytest.raises(DataError, match="redirects to"):
        download(crawl.url, tmp_path, patience=QUICK)


def test_a_redirect_on_the_same_host_is_followed(crawl, tmp_path):
    crawl.redirect = crawl.url + "2"
    assert download(crawl.url, tmp_path, patience=QUICK).read_bytes() == DATA


def test_a_full_disk_is_said_before_anything_is_downloaded(crawl, tmp_path, monkeypatch):
    def full(folder, needed_bytes, *, purpose):
        raise ResourceError(f"{purpose} needs {needed_bytes}")

    monkeypatch.setattr(files, "require_free_bytes", full)
    with pytest.raises(ResourceError, match="300000"):
        download(crawl.url, tmp_path, patience=QUICK)


def test_a_file_beyond_the_cap_is_refused(crawl, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "MAX_FILE_BYTES", 1000)
    with pytest.raises(DataError, match="too much"):
        download(crawl.url, tmp_path, patience=QUICK)


def test_nothing_listening_is_an_error(tmp_path):
    with pytest.raises(DataError, match="refused"):
        download("http://127.0.0.1:9/x", tmp_path, patience=QUICK)


def test_names_in_the_folder_cannot_lead_out_of_it(tmp_path):
    for url in ("https://h/../../etc/passwd", "https://h/a%2F..%2Fb", "https://h/", "https://h/" + "x" * 400):
        path = local_path(url, tmp_path)
        assert path.parent == tmp_path
        assert len(path.name) < 200
    assert local_path("https://h/a/x.gz", tmp_path) != local_path("https://h/b/x.gz", tmp_path)


def test_two_downloads_of_one_file_make_one(crawl, tmp_path):
    threads = [threading.Thread(target=download, args=(crawl.url, tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert crawl.asked == [None]


def test_s3_without_its_library_says_what_to_install(tmp_path):
    with pytest.raises(DataError, match="s3fs"):
        download("s3://commoncrawl/x", tmp_path)


def test_s3_goes_on_where_it_stopped(tmp_path, monkeypatch):
    system = MemoryFileSystem()
    system.pipe("/bucket/file", DATA)
    asked = {}

    class Anonymous:
        def info(self, url):
            return {"size": len(DATA), "ETag": '"1"'}

        def open(self, url, mode):
            return system.open(url.removeprefix("s3:/"), mode)

    def filesystem(protocol, **options):
        asked.update(options, protocol=protocol)
        return Anonymous()

    monkeypatch.setattr(fsspec, "filesystem", filesystem)
    with monkeypatch.context() as patch:
        patch.setattr(remote, "_copy", lambda url, source, target: target.write(source.read(1000)))
        with pytest.raises(DataError):
            download("s3://bucket/file", tmp_path, patience=Patience(attempts=0))
    path = download("s3://bucket/file", tmp_path, endpoint="http://minio", patience=QUICK)
    assert path.read_bytes() == DATA
    assert asked == {"protocol": "s3", "anon": True, "client_kwargs": {"endpoint_url": "http://minio"}}
