"""Reading crawl archives: formats, headers by name, HTML, and every fault costing one record."""

from __future__ import annotations

import gzip
import io
import random
import resource
import time
import zlib
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from warcio.archiveiterator import ArchiveIterator

from crawl_archives import gzipped, pages, record, response
from criadero.corpus.document import BadRecord
from criadero.corpus.sources.commoncrawl.warc import Page, read
from linear_time import is_linear
from packaged import packaged_file


def read_bytes(folder: Path, data: bytes, **options) -> tuple[list[Page], list[BadRecord]]:
    path = folder / "crawl.warc"
    path.write_bytes(data)
    found = list(read(path, "crawl", **options))
    return [f for f in found if isinstance(f, Page)], [f for f in found if isinstance(f, BadRecord)]


def numbers(good: list[Page]) -> list[int]:
    return [int(page.text.split()[1]) for page in good]


def zstd_frames(records: list[bytes]) -> bytes:
    return b"".join(zstandard.compress(r) for r in records)


def whole_gzip(records: list[bytes]) -> bytes:
    return gzip.compress(b"".join(records))


FORMATS = {"plain": b"".join, "gzip": gzipped, "zstd": zstd_frames, "one gzip member": whole_gzip}


@pytest.mark.parametrize("compress", FORMATS.values(), ids=FORMATS)
def test_all_formats_give_the_same_pages(tmp_path, compress):
    good, bad = read_bytes(tmp_path, compress(pages(20)))
    assert (numbers(good), bad) == (list(range(20)), [])
    assert good[3].url == "http://x/3"
    assert len({page.id for page in good}) == 20


def test_gzip_members_cut_anywhere_are_joined(tmp_path):
    data = b"".join(pages(20))
    cut = b"".join(gzip.compress(data[i : i + 700]) for i in range(0, len(data), 700))
    good, bad = read_bytes(tmp_path, cut)
    assert (numbers(good), bad) == (list(range(20)), [])


def test_headers_are_found_by_name_cc_net_16(tmp_path):
    """Archives from 2020-34 on carry one more header, which shifts all that follow."""
    digest = ("WARC-Block-Digest", "sha1:ABC")
    language = ("WARC-Identified-Content-Language", "eng")
    for headers in ((digest,), (language, digest), (digest, language)):
        good, bad = read_bytes(tmp_path, gzipped([record(b"text", headers=headers)]))
        assert bad == []
        assert (good[0].digest, good[0].url, good[0].date, good[0].text) == (
            "sha1:ABC",
            "http://example.org/",
            "2022-05-16T01:02:03Z",
            "text",
        )


def test_records_that_are_no_page_are_passed_over(tmp_path):
    others = [record(b"x", kind=kind) for kind in ("warcinfo", "request", "metadata", "unheard-of")]
    image = response(b"\x89PNG", http=("Content-Type: image/png",))
    moved = response(b"<p>moved").replace(b"200 OK", b"302 OK")
    good, bad = read_bytes(tmp_path, gzipped([*others, image, moved, *pages(1)]))
    assert (numbers(good), bad) == ([0], [])


@pytest.mark.parametrize(
    ("html", "http"),
    [
        ("<p>caf\u00e9".encode("latin-1"), ("Content-Type: text/html; charset=ISO-8859-1",)),
        ('<meta charset="iso-8859-1"><p>caf\u00e9'.encode("latin-1"), ("Content-Type: text/html",)),
        ("<p>caf\u00e9".encode(), ("Content-Type: text/html; charset=no-such-charset",)),
        (
            gzip.compress(b"<p>caf\xc3\xa9"),
            ("Content-Type: text/html; charset=utf-8", "Content-Encoding: gzip"),
        ),
        (b"<p>caf\xc3\xa9", ("Content-Type: text/html; charset=utf-8", "Transfer-Encoding: chunked")),
        (
            b"3\r\n<p>\r\n5\r\ncaf\xc3\xa9\r\n0\r\n\r\n",
            ("Content-Type: text/html", "Transfer-Encoding: chunked"),
        ),
    ],
    ids=["HTTP charset", "meta charset", "unknown charset", "gzip", "chunked in name only", "chunked"],
)
def test_html_is_decoded_and_extracted(tmp_path, html, http):
    good, bad = read_bytes(tmp_path, response(html, http=http), main_content=False)
    assert ([page.text.strip() for page in good], bad) == (["caf\u00e9"], [])


@pytest.mark.parametrize("main_content", [True, False])
def test_html_begins_with_its_title_as_wet_does_so_that_no_heading_is_taken_for_it(tmp_path, main_content):
    body = "<h1>Heading</h1>" + "<p>A sentence of this page with words enough to be content.</p>" * 5
    html = f"<head><title>A &amp;\n B</title></head><body>{body}".encode()
    good, _ = read_bytes(tmp_path, response(html), main_content=main_content)
    lines = [line for line in good[0].text.split("\n") if line]
    assert lines[:2] == ["A & B", "Heading"]
    assert len(lines) == 7


def test_text_never_holds_half_a_surrogate_pair(tmp_path):
    good, _ = read_bytes(tmp_path, response(b"<p>&#xD800; a") + record(b"\xed\xa0\x80 a"), main_content=False)
    assert [page.text.encode().decode()[-1] for page in good] == ["a", "a"]


def test_a_real_crawl_gives_the_html_that_warcio_sees():
    path = packaged_file("iana-warc")
    with path.open("rb") as stream:
        expected = [
            r.rec_headers.get_header("WARC-Target-URI")
            for r in ArchiveIterator(stream)
            if r.rec_type == "response"
            and r.http_headers.get_statuscode() == "200"
            and (r.http_headers.get_header("Content-Type") or "").startswith("text/html")
        ]
    found = list(read(path, "iana", main_content=False))
    assert [page.url for page in found] == expected
    assert "responsible for the global" in " ".join(found[0].text.split())


# Faults. Row 20: truncated or damaged archives.


def test_a_gzip_cut_anywhere_keeps_what_was_before_and_says_where(tmp_path):
    members = [gzipped([r]) for r in pages(4)]
    data, starts = b"".join(members), [sum(map(len, members[:i])) for i in range(5)]
    for cut in range(1, len(data)):
        whole = sum(start <= cut for start in starts[1:])
        good, bad = read_bytes(tmp_path, data[:cut])
        assert numbers(good) == list(range(whole)), cut
        assert [b.id for b in bad] == ([] if cut in starts else [f"crawl@{starts[whole]}"]), cut


def test_a_plain_archive_cut_anywhere_keeps_what_was_before(tmp_path):
    records = pages(3, words=3)
    data, starts = b"".join(records), [sum(map(len, records[:i])) for i in range(4)]
    for cut in range(1, len(data)):
        good, bad = read_bytes(tmp_path, data[:cut])
        whole = sum(start - 4 <= cut for start in starts[1:])
        assert numbers(good) == list(range(whole)), cut
        assert len(bad) <= 1


@pytest.mark.parametrize("place", [-8, -5, -1, 30, 60])
def test_a_flipped_byte_costs_one_record(tmp_path, place):
    members = [gzipped([r]) for r in pages(5)]
    damaged = bytearray(members[2])
    damaged[place] ^= 0xFF
    good, bad = read_bytes(tmp_path, b"".join([*members[:2], bytes(damaged), *members[3:]]))
    assert numbers(good) == [0, 1, 3, 4]
    assert [b.id for b in bad] == [f"crawl@{len(members[0] + members[1])}"]


@pytest.mark.parametrize("place", range(4))
def test_damage_at_the_very_beginning_costs_one_record(tmp_path, place):
    data = bytearray(gzipped(pages(4)))
    data[place] ^= 0x40
    path = tmp_path / "crawl.warc.gz"
    path.write_bytes(bytes(data))
    found = list(read(path, "crawl"))
    assert numbers([f for f in found if isinstance(f, Page)]) == [1, 2, 3]
    assert [f.id for f in found if isinstance(f, BadRecord)] == ["crawl@0"]


def test_a_damaged_start_of_a_record_does_not_cost_the_record_before(tmp_path):
    records = pages(4)
    records[2] = b"X" + records[2][1:]
    good, bad = read_bytes(tmp_path, b"".join(records))
    assert (numbers(good), [b.reason for b in bad]) == ([0, 1, 3], ["not_a_record"])


def test_a_flipped_byte_in_zstd_costs_one_record(tmp_path):
    members = [zstandard.ZstdCompressor(write_checksum=True).compress(r) for r in pages(5)]
    damaged = bytearray(members[2])
    damaged[-1] ^= 0xFF
    good, bad = read_bytes(tmp_path, b"".join([*members[:2], bytes(damaged), *members[3:]]))
    assert (numbers(good), len(bad)) == ([0, 1, 3, 4], 1)
    good, bad = read_bytes(tmp_path, b"".join(members)[:-7])
    assert (numbers(good), [b.reason for b in bad]) == ([0, 1, 2, 3], ["truncated_file"])


@pytest.mark.parametrize("compress", [gzipped, b"".join, whole_gzip])
@pytest.mark.parametrize("wrong", [3, 200, 2000, 10**6, 10**17])
def test_a_wrong_content_length_costs_one_record(tmp_path, compress, wrong):
    records = pages(5)
    records[2] = record(b"page 2 " + b"words " * 80, length=wrong)
    good, bad = read_bytes(tmp_path, compress(records))
    assert numbers(good) == [0, 1, 3, 4]
    assert len(bad) == 1


@pytest.mark.parametrize("compress", [gzipped, b"".join, whole_gzip])
@pytest.mark.parametrize("end", [b"", b"\r\n", b"\n\n", b"\r\n" * 5])
def test_missing_and_extra_blank_lines_cost_nothing(tmp_path, compress, end):
    records = [record(f"page {i} words".encode(), end=end) for i in range(4)]
    good, bad = read_bytes(tmp_path, compress(records))
    assert (numbers(good), bad) == ([0, 1, 2, 3], [])


def test_padding_and_trailing_bytes_are_told_apart(tmp_path):
    good, bad = read_bytes(tmp_path, gzipped(pages(2)) + b"\0" * 512)
    assert (numbers(good), bad) == ([0, 1], [])
    good, bad = read_bytes(tmp_path, gzipped(pages(2)) + b"junk" + gzipped(pages(1)))
    assert (numbers(good), [b.reason for b in bad]) == ([0, 1, 0], ["not_compressed"])


def test_an_empty_file_and_one_of_another_kind_are_said(tmp_path):
    assert [b.reason for b in read_bytes(tmp_path, b"")[1]] == ["empty_file"]
    assert [b.reason for b in read_bytes(tmp_path, b"%PDF-1.4 and more")[1]] == ["not_a_record"]


# Row 21: bombs, endless lines, huge records. Memory stays flat.


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def bomb(megabytes: int) -> bytes:
    """`megabytes` of zeros as one gzip member, after a record's header."""
    compressor = zlib.compressobj(9, wbits=31)
    parts = [compressor.compress(record(b"", length=megabytes << 20, end=b""))]
    parts += [compressor.compress(bytes(1 << 20)) for _ in range(megabytes)]
    return b"".join([*parts, compressor.flush()])


def test_a_gzip_bomb_costs_one_record_and_no_memory(tmp_path):
    data = gzipped(pages(2)) + bomb(400) + gzipped(pages(1))
    before, start = peak_bytes(), time.process_time()
    good, bad = read_bytes(tmp_path, data)
    assert numbers(good) == [0, 1, 0]
    assert len(bad) == 1
    assert peak_bytes() - before < 200 << 20
    assert time.process_time() - start < 5  # it was not decompressed to its end


def test_a_zstd_bomb_costs_no_memory(tmp_path):
    before = peak_bytes()
    data = zstandard.compress(record(b"", length=1 << 33, end=b"") + bytes(1 << 28))
    good, bad = read_bytes(tmp_path, data + zstd_frames(pages(1)))
    assert (numbers(good), len(bad)) == ([0], 1)
    assert peak_bytes() - before < 500 << 20  # 256 MiB of it the bomb in the making


def test_content_that_grows_when_decoded_is_capped(tmp_path):
    html = gzip.compress(b"<p>" + b" " * (1 << 24))
    archive = response(html, http=("Content-Type: text/html", "Content-Encoding: gzip"))
    _, bad = read_bytes(tmp_path, archive, max_record_bytes=1 << 20)
    assert [b.reason for b in bad] == ["record_too_large"]


def test_a_huge_record_and_an_endless_header_cost_one_record_each(tmp_path):
    huge = record(b"x" * (1 << 21))
    endless = b"WARC/1.0\r\nWARC-Type: conversion\r\nX: " + b"y" * (1 << 20) + b"\r\n"
    good, bad = read_bytes(tmp_path, gzipped([huge, *pages(1), endless, *pages(1)]), max_record_bytes=1 << 20)
    assert numbers(good) == [0, 0]
    assert [b.reason for b in bad] == ["record_too_large", "bad_header"]


def test_an_endless_line_is_a_bad_record(tmp_path):
    _, bad = read_bytes(tmp_path, record(b"x" * (2 << 20)))
    assert [b.reason for b in bad] == ["line_too_long"]


@pytest.mark.parametrize("tag", ["div", "ARTICLE class=a", "ul><li"])
def test_a_page_of_elements_nested_without_end_costs_itself_and_no_time(tmp_path, tag):
    """Unguarded, 50,000 blocks take minutes and as many lists gigabytes of indentation."""
    deep = f"<{tag}>x".encode() * 50_000
    flat = f"<{tag}>x</{tag.split('>')[0].split()[0]}>".encode() * 2000
    start = time.process_time()
    good, bad = read_bytes(tmp_path, gzipped([response(deep), response(flat)]), main_content=False)
    assert time.process_time() - start < 2
    assert [b.reason for b in bad] == ["bad_content"]
    assert "nested more than" in bad[0].detail
    assert len(good) == 1


def test_time_grows_with_size_only(tmp_path):
    """Many records that lie about their length make each other's bytes be looked at again."""
    lies = record(b"abc", length=60_000)
    assert is_linear(lambda data: read_bytes(tmp_path, data), lambda count: lies * count, 4000)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(sorted(FORMATS)))
def test_no_bytes_crash_the_reader(tmp_path_factory, seed, name):
    """Archives with bytes changed, removed and added at random places."""
    rng = random.Random(seed)
    data = bytearray(FORMATS[name]([*pages(3, words=5), response(b"<p>hello")]))
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(len(data))
        data[place : place + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
    good, bad = read_bytes(tmp_path_factory.mktemp("fuzz"), bytes(data))
    assert len(good) + len(bad) <= 4 + 3
    io.BytesIO("".join(page.text for page in good).encode())
