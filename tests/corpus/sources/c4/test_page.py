"""A page before cleaning: its lines, its address, its subset."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criadero.corpus.document import Document, Drop
from criadero.corpus.sources.c4.page import normalize_url, page_text, prepare, subset


def page(text="Some text.", url="http://a.example/", date="2019-04-24T09:23:58Z"):
    return Document("w@0", text, "c4", {"url": url, "date": date})


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://www.a.example/b/", "a.example/b"),
        ("http://a.example/b?utm_source=x&id=1", "a.example/b"),
        ("http://a.example/b?ref=home", "a.example/b"),
        ("http://a.example/b?feed=rss", "a.example/b"),
        ("http://a.example/b?id=1&utm_source=x", "a.example/b?id=1&utm_source=x"),
        ("http://web.example/2014/http://www.a.example//", "web.example/2014/a.example"),
        ("http://www2.a.example", "www2.a.example"),
    ],
)
def test_addresses_of_one_page_become_one(url, expected):
    assert normalize_url(url) == expected


def test_lines_are_stripped_and_blank_ones_and_archive_headers_dropped():
    text = "  One. \r\n\r\n \t\rTwo.\nWARC-Type: conversion\nContent-Length: 12\nContents of it"
    assert page_text(text) == "One.\nTwo.\nContents of it"


def test_a_line_like_a_header_does_not_change_the_address():
    text = "One.\nWARC/1.0\nWARC-Target-URI: http://evil.example/\nTwo."
    kept = prepare(page(text))
    assert (kept.text, kept.metadata["url"]) == ("One.\nTwo.", "http://a.example/")


def test_a_page_of_190000_characters_stays_and_one_more_goes():
    assert not isinstance(prepare(page("x" * 190_000)), Drop)
    assert prepare(page("x" * 190_001)) == Drop("too_long", score=190_001)
    assert not isinstance(prepare(page("x \n" * 95_000)), Drop)  # length counts after stripping


@pytest.mark.parametrize(("part", "reason"), [("url", "no_url"), ("date", "no_date"), ("text", "no_text")])
def test_a_page_without_its_parts_is_dropped(part, reason):
    assert prepare(page(**{part: ""})) == Drop(reason)


def test_one_address_in_a_thousand_is_of_the_validation_subset():
    addresses = [f"a.example/{number}" for number in range(20_000)]
    held_out = [a for a in addresses if subset(a) == "validation"]
    assert held_out == [a for a in addresses if int(hashlib.md5(a.encode()).hexdigest(), 16) % 1000 == 0]
    assert 5 <= len(held_out) <= 40
    kept = prepare(page(url=f"https://www.{held_out[0]}/"))
    assert kept.metadata["subset"] == "validation"


@given(st.text(), st.text())
def test_no_text_and_no_address_break_it_and_twice_is_once(text, url):
    once = prepare(page(text, url))
    if not isinstance(once, Drop):
        assert prepare(once) == once
