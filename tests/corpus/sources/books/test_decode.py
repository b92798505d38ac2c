"""Encodings of old books."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criadero.corpus.sources.books.decode import decode

TEXT = "Café “quoted” – 1½"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings_that_need_no_declaration(encoding: str) -> None:
    assert decode(TEXT.encode(encoding)) == TEXT


@pytest.mark.parametrize(
    ("declared", "encoding", "text"),
    [
        ("ISO-8859-2", "iso-8859-2", "Příliš žluťoučký"),
        ("windows-1251", "cp1251", "Война и мир"),
        ("ISO-8859-1", "cp1252", TEXT),
        ("ASCII", "cp1252", TEXT),
        ("Big5", "big5", "紅樓夢"),
        ("zip_codec", "cp1252", TEXT),
    ],
)
def test_the_declared_encoding_is_tried_after_utf_8(declared: str, encoding: str, text: str) -> None:
    head = f"Title: x\n\nCharacter set encoding: {declared}\n\n"
    assert decode((head + text).encode(encoding)) == head + text
    assert decode((head + "Žě").encode()) == head + "Žě"


def test_lines_end_in_one_way() -> None:
    assert decode(b"a\r\nb\rc\nd") == "a\nb\nc\nd"


@given(st.binary(max_size=200))
def test_any_bytes_become_text_that_utf_8_can_hold(data: bytes) -> None:
    text = decode(data)
    assert text.encode().decode() == text
    assert "\r" not in text
