"""Bytes of TeX files as text: the encoding a paper declares, else UTF-8, else Windows-1252 or Latin-1.

Entry points: `declared_encoding` and `decode`. Most papers before 2007 are not UTF-8.
"""

from __future__ import annotations

import re

_INPUTENC = re.compile(rb"^[^%\n]*\\usepackage\[([a-zA-Z0-9-]{1,20})\]\{inputenc\}", re.MULTILINE)
# The names of inputenc that are not Python's own.
_NAMES = {"utf8x": "utf-8", "latin9": "iso8859-15", "latin10": "iso8859-16", "ansinew": "cp1252"} | {
    "applemac": "mac-roman",
    "decmulti": "latin-1",
    "next": "latin-1",
    "x-iso-8859-1": "latin-1",
}
_MAX_PREAMBLE_BYTES = 1 << 18


def declared_encoding(data: bytes) -> str | None:
    """Return what the preamble of a main file declares with inputenc, if Python knows it."""
    found = _INPUTENC.search(data, 0, _MAX_PREAMBLE_BYTES)
    if found is None:
        return None
    name = found[1].decode("ascii").lower()
    name = _NAMES.get(name, name)
    try:
        "".encode(name)
    except LookupError:
        return None
    return name


def decode(data: bytes, declared: str | None) -> str:
    """Return the text of a file; every sequence of bytes has one."""
    if data.startswith(b"\xef\xbb\xbf"):
        data, declared = data[3:], "utf-8"
    for encoding in (declared, "utf-8", "cp1252"):
        if encoding is not None:
            try:
                return data.decode(encoding).replace("\0", "")
            except (UnicodeError, ValueError):
                continue
    return data.decode("latin-1").replace("\0", "")
