"""Addresses in one form: equal for one page, different for two."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criadero.corpus.urls import host_of, normalise

SAME = [
    "http://example.org/a/b",
    "https://www.example.org/a/b/",
    "//Example.ORG:80/a/b#part",
    "https://user@example.org:443/a/b?utm_source=x&fbclid=1",
    "http://example.org./%61/b",
    "https://web.archive.org/web/20100101000000/http://example.org/a/b",
    "https://web.archive.org/web/20100101000000id_/www.example.org/a/b",
    "http://archive.is/20100101/http://example.org/a/b",
]


@pytest.mark.parametrize("url", SAME)
def test_ways_to_write_one_address_are_one(url):
    assert normalise(url) == "example.org/a/b"


def test_other_pages_stay_apart():
    urls = ["http://e.org/a?id=1", "http://e.org/a?id=2", "http://e.org/A?id=1", "http://f.e.org/a?id=1"]
    assert len({normalise(url) for url in urls}) == 4


@pytest.mark.parametrize(
    "url", ["", "mailto:a@b.c", "/relative", "http://", "http://localhost/x", "javascript:x", "http://[::1"]
)
def test_what_is_no_page_is_none(url):
    assert normalise(url) is None


def test_hosts_in_other_scripts_have_one_form():
    assert normalise("http://bücher.example/ü") == normalise("http://xn--bcher-kva.example/%C3%BC")
    assert host_of("e.org?x=/") == "e.org"


@given(st.text(max_size=60) | st.builds("http://e.org/{}".format, st.text(max_size=40)))
def test_no_text_crashes_it_and_twice_is_once(text):
    once = normalise(text)
    assert once is None or normalise("http://" + once) == once
