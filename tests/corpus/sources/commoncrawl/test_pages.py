"""Pages as documents: metadata, title, least length, and archives that are downloaded."""

from __future__ import annotations

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawl_archives import gzipped, pages, record
from criadero.corpus.document import BadRecord, Document, Drop
from criadero.corpus.engine.stage import Split
from criadero.corpus.sources.commoncrawl.pages import dump_of, make_parse, make_reader


def reader(**settings):
    return make_reader(source="crawl", max_record_bytes=1 << 20, main_content=True, **settings)


def parse(text: str, min_characters: int = 0):
    return make_parse(min_characters=min_characters)(Document("d", text, "crawl"))


def test_a_page_carries_where_it_is_from(tmp_path):
    path = tmp_path / "CC-MAIN-2022-21" / "x.warc.wet.gz"
    path.parent.mkdir()
    path.write_bytes(gzipped([record(b"text", headers=(("WARC-Block-Digest", "sha1:A"),))]))
    (document,) = reader()(Split("x.warc.wet.gz", str(path)))
    assert document == Document(
        "x.warc.wet.gz@0",
        "text",
        "crawl",
        {
            "url": "http://example.org/",
            "date": "2022-05-16T01:02:03Z",
            "digest": "sha1:A",
            "dump": "CC-MAIN-2022-21",
        },
    )


def test_the_dump_is_read_from_the_path():
    assert dump_of("https://h/crawl-data/CC-MAIN-2022-21/segments/1/wet/CC-MAIN-20220516-1.gz") == (
        "CC-MAIN-2022-21"
    )
    assert dump_of("/data/my.warc") == ""


def test_the_first_line_is_the_title_and_leaves_the_text():
    kept = parse("\n  A title \n  first line \r\nsecond\t\n")
    assert (kept.text, kept.metadata["title"]) == ("first line\nsecond", "A title")


@pytest.mark.parametrize(("length", "kept"), [(299, False), (300, True)])
def test_the_least_length_counts_the_text_without_the_title(length, kept):
    result = parse("title " * 100 + "\n" + "x" * length, 300)
    assert isinstance(result, Document) == kept
    if not kept:
        assert result == Drop("too_short", score=299.0)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_text_crashes_it_and_every_line_is_stripped(text):
    result = parse(text)
    assert all(line == line.strip() for line in result.text.split("\n"))


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    crawl = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=crawl.serve_forever, args=(0.01,))
    thread.start()
    yield folder, f"http://127.0.0.1:{crawl.server_address[1]}"
    crawl.shutdown()
    thread.join()
    crawl.server_close()


@pytest.mark.parametrize("keep", [True, False])
def test_an_archive_on_a_server_is_downloaded_and_read(server, tmp_path, keep):
    folder, url = server
    (folder / "x.warc.gz").write_bytes(gzipped(pages(3)))
    downloads = tmp_path / "downloads"
    read = reader(downloads=str(downloads), keep_downloads=keep)
    found = list(read(Split("x.warc.gz", f"{url}/x.warc.gz")))
    assert [d.id.split("@")[0] for d in found] == ["x.warc.gz"] * 3
    assert len(list(downloads.glob("*.warc.gz"))) == keep


def test_an_archive_the_server_does_not_have_is_one_bad_record(server, tmp_path):
    _, url = server
    found = list(reader(downloads=str(tmp_path))(Split("gone", f"{url}/gone.warc.gz")))
    assert [(type(f), f.reason) for f in found] == [(BadRecord, "not_on_server")]
