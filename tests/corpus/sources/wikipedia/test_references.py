"""Addresses cited: each form of reference that a pattern over lines misses, by name."""

from __future__ import annotations

from pathlib import Path

import mwparserfromhell
import pytest

from corpus.sources.wikipedia.exports import page, write_plain
from criadero.corpus.sources.wikipedia.references import reference_urls
from linear_time import is_linear

SAMPLES = Path(__file__).parents[4] / "samples" / "raw" / "wikipedia"


@pytest.mark.parametrize(
    ("wikitext", "expected"),
    [
        ("<ref>http://a.b/c</ref>", ["http://a.b/c"]),
        ('<ref name="n">http://a.b/c</ref>', ["http://a.b/c"]),
        ("<ref name=n group=g >\n{{cite web\n| url = https://a.b/c?d=e&f=g\n| title = T\n}}\n</ref>",
         ["https://a.b/c?d=e&f=g"]),
        ("<ref>[http://a.b/c Title (x)]</ref>", ["http://a.b/c"]),
        ("<ref>[//a.b/c Title]</ref>", ["https://a.b/c"]),
        ("<REF>HTTP://A.b</REF>", ["HTTP://A.b"]),
        ("<ref>See http://a.b/c.</ref>", ["http://a.b/c"]),
        ("<ref>(http://a.b/c_(d))</ref>", ["http://a.b/c_(d)"]),
        ("<ref>''http://a.b/c''</ref>", ["http://a.b/c"]),
        ("<ref>http://a.b/c&amp;d http://e.f&nbsp;g</ref>", ["http://a.b/c&d", "http://e.f"]),
        ("<ref name=n/> http://not.cited <ref>http://a.b</ref>", ["http://a.b"]),
        ("<!-- <ref>http://a.b</ref> --><ref>none</ref>", []),
        ("<references><ref name=n>http://a.b</ref></references>", ["http://a.b"]),
        ("{{reflist|refs=<ref name=n>http://a.b</ref>}}", ["http://a.b"]),
        ("<ref>open http://a.b", []),
    ],
)  # fmt: skip
def test_addresses_in_references_are_found(wikitext: str, expected: list[str]) -> None:
    assert list(reference_urls(wikitext)) == expected


def test_bug_greedy_pattern_takes_what_stands_between_two_references_of_a_line() -> None:
    line = "<ref>http://a.b/1</ref> see http://not.cited <ref>http://a.b/2</ref>"
    assert list(reference_urls(line)) == ["http://a.b/1", "http://a.b/2"]


def test_bug_named_references_and_references_over_lines_are_lost() -> None:
    text = "x<ref name=a>http://a.b/1</ref>\ny<ref>\nhttp://a.b/2\n</ref>"
    assert list(reference_urls(text)) == ["http://a.b/1", "http://a.b/2"]


def test_a_dump_gives_the_references_of_its_articles(tmp_path: Path) -> None:
    path = write_plain(
        tmp_path / "a.xml.bz2",
        page(1, "<ref>http://a.b/1</ref>"),
        page(2, "<ref>http://a.b/2</ref>", namespace=4),
        page(3, "<ref>http://a.b/3</ref>", redirect="X"),
        page(4, "<ref name=x>http://a.b/4</ref>"),
    )
    assert list(reference_urls(path)) == ["http://a.b/1", "http://a.b/4"]


def test_addresses_of_a_real_dump_are_those_mwparserfromhell_finds() -> None:
    path = SAMPLES / "bgwiki-latest-pages-articles-shortened.xml.bz2"
    from criadero.corpus.sources.wikipedia.references import _articles

    for text in _articles(path):
        parsed = mwparserfromhell.parse(text)
        references = [tag for tag in parsed.filter_tags() if str(tag.tag).strip() == "ref" and tag.contents]
        expected = [str(link.url) for tag in references for link in tag.contents.filter_external_links()]
        assert set(reference_urls(text)) >= {url for url in expected if url.startswith("http")}


def test_twice_the_text_takes_less_than_three_times_as_long() -> None:
    def wikitext(length: int) -> str:
        return "<ref>http://a.b/" + "c" * length + ")" * length + "<ref>" * length

    assert is_linear(lambda text: list(reference_urls(text)), wikitext, 50_000)
