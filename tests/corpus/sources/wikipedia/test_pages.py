"""Pages out of an export: one bad page costs one page, and nothing costs memory."""

from __future__ import annotations

import contextlib
import itertools
import tracemalloc
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.sources.wikipedia.exports import HEAD, TAIL, page
from criadero.corpus.sources.wikipedia.pages import CutPage, cut_pages, parse_page


def _chunks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def test_pages_are_those_another_parser_finds() -> None:
    export = (
        HEAD + page(1, "a < b & ''c''") + page(2, "", redirect="X & Y") + page(3, "ü 漢", namespace=4) + TAIL
    )
    found = [parse_page(cut.xml) for cut in cut_pages([export.encode()])]
    spaced = {"": "http://www.mediawiki.org/xml/export-0.10/"}
    expected = ET.fromstring(export).findall("page", spaced)
    assert [p.id for p in found] == [e.findtext("id", namespaces=spaced) for e in expected] == ["1", "2", "3"]
    assert [p.title for p in found] == [e.findtext("title", namespaces=spaced) for e in expected]
    assert [p.text for p in found] == [e.findtext("revision/text", namespaces=spaced) or "" for e in expected]
    assert [p.redirect for p in found] == [None, "X & Y", None]
    assert [p.namespace for p in found] == [0, 0, 4]
    assert [p.revision for p in found] == ["1001", "1002", "1003"]


@given(st.integers(1, 300), st.lists(st.text(max_size=30), max_size=5))
def test_where_the_chunks_are_cut_changes_nothing(size: int, texts: list[str]) -> None:
    data = "".join(page(n, text) for n, text in enumerate(texts)).encode(errors="replace")
    assert list(cut_pages(_chunks(data, size))) == list(cut_pages([data]))


_ELEMENTS = [b"<title>T</title>", b"<id>1</id>", b"<ns>0</ns>", b"<ns>x</ns>", b"<id>", b"<page>", b"\xff"]


@given(st.binary(max_size=200) | st.lists(st.sampled_from(_ELEMENTS)).map(b"".join), st.integers(1, 50))
def test_any_bytes_are_cut_and_parsed_or_refused(data: bytes, size: int) -> None:
    cuts = list(cut_pages(_chunks(b"<page>" + data + b"</page>" + data, size)))
    assert [cut.number for cut in cuts] == list(range(len(cuts)))
    for cut in cuts:
        with contextlib.suppress(ValueError):
            parsed = parse_page(cut.xml)
            assert (parsed.title[:1], parsed.id[:1], parsed.namespace) == ("T", "1", 0)


def test_a_page_never_closed_costs_itself() -> None:
    broken = page(2, "lost").replace("</page>", "")
    cuts = list(cut_pages([(page(1, "a") + broken + page(3, "b") + "<page><title>").encode()]))
    assert [cut.fault for cut in cuts] == ["", "unclosed_page", "", "unclosed_page"]
    assert [cut.number for cut in cuts] == [0, 1, 2, 3]
    assert parse_page(cuts[2].xml).text == "b"


def test_a_page_that_is_too_large_is_passed_over_in_bounded_memory() -> None:
    chunks = itertools.chain(
        [page(1, "a").encode(), b"<page><text>"],
        (b"x" * 100_000 for _ in range(400)),
        [b"</text></page>", page(3, "b").encode()],
    )
    tracemalloc.start()
    cuts = list(cut_pages(chunks, max_bytes=1_000_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [cut.fault for cut in cuts] == ["", "page_too_large", ""]
    assert peak < 10_000_000  # of 40 MB


def test_pitfall_memory_grows_with_the_pages_that_were_read() -> None:
    """iterparse keeps every element below the root unless the root itself is cleared."""
    chunks = (page(n, "word " * 200).encode() for n in range(4000))
    tracemalloc.start()
    read = sum(1 for cut in cut_pages(chunks) if parse_page(cut.xml).text)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read == 4000
    assert peak_bytes < 200_000  # of 5 MB


@pytest.mark.parametrize(
    "fault",
    [
        "<page><title>T</title><id>1</id><b></page>",
        "<page><title>T</title><id>1</id>&lol;</page>",
        "<page><id>1</id></page>",
        "<page><title>T</title><id>x</id></page>",
        "<page><title>T</title><ns>x</ns><id>1</id></page>",
        "<page><title>T</title><id>1</id><text>\udcff</text></page>",
    ],
)
def test_bad_xml_is_refused(fault: str) -> None:
    with pytest.raises(ValueError):
        parse_page(fault.encode(errors="surrogateescape"))


def test_a_billion_laughs_are_never_expanded() -> None:
    declarations = "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(9))
    export = (
        f'<!DOCTYPE x [<!ENTITY l0 "lol">{declarations}]>'
        + page(1, "a")
        + page(2, "b").replace(">b<", ">&l9;<")
    )
    good, bad = cut_pages([export.encode()])
    assert parse_page(good.xml).text == "a"
    with pytest.raises(ValueError, match="undefined entity"):
        parse_page(bad.xml)


def test_deep_elements_that_nobody_wants_are_not_kept() -> None:
    deep = "<x>" * 100_000 + "</x>" * 100_000
    found = parse_page(page(1, "text").replace("<revision>", f"<revision>{deep}").encode())
    assert found.text == "text"


def test_cut_pages_are_numbered_from_zero() -> None:
    assert [cut.number for cut in cut_pages([b"no page here"])] == []
    assert next(cut_pages([b"<page></page>"])) == CutPage(0, b"<page></page>")
