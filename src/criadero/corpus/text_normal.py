"""The two ways CCNet makes texts alike: lines before they are compared, documents before they are scored.

Entry points: `comparable_lines` and `scorable` (CCNet, Wenzek et al. 2020, 3.1 and 3.4). Both lower the case
and write every digit as 0. For lines a set of typographic punctuation marks is deleted; for scoring it is
mapped to ASCII and accents are removed. Whole texts are mapped at once through tables by code point.
"""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np
import numpy.typing as npt

_CODE_POINTS = 0x110000
_DELETED = _CODE_POINTS
_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
# Marks that crawled text writes in many ways, and the ASCII character for each.
PUNCTUATION = {
    "\N{FULLWIDTH COMMA}": ",",
    "\N{IDEOGRAPHIC COMMA}": ",",
    "\N{IDEOGRAPHIC FULL STOP}": ".",
    "\N{FULLWIDTH FULL STOP}": ".",
    "\N{FULLWIDTH COLON}": ":",
    "\N{RATIO}": ":",
    "\N{FULLWIDTH SEMICOLON}": ";",
    "\N{FULLWIDTH QUESTION MARK}": "?",
    "\N{FULLWIDTH EXCLAMATION MARK}": "!",
    "\N{FULLWIDTH LEFT PARENTHESIS}": "(",
    "\N{FULLWIDTH RIGHT PARENTHESIS}": ")",
    "\N{FULLWIDTH PERCENT SIGN}": "%",
    "\N{FULLWIDTH TILDE}": "~",
    "\N{LEFT DOUBLE QUOTATION MARK}": '"',
    "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
    "\N{DOUBLE LOW-9 QUOTATION MARK}": '"',
    "\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}": '"',
    "\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}": '"',
    "\N{LEFT DOUBLE ANGLE BRACKET}": '"',
    "\N{RIGHT DOUBLE ANGLE BRACKET}": '"',
    "\N{LEFT CORNER BRACKET}": '"',
    "\N{RIGHT CORNER BRACKET}": '"',
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{ACUTE ACCENT}": "'",
    "\N{EN DASH}": "-",
    "\N{EM DASH}": "-",
    "\N{BOX DRAWINGS HEAVY HORIZONTAL}": "-",
    "\N{BLACK RIGHT-POINTING POINTER}": "-",
    "\N{LEFT ANGLE BRACKET}": "<",
    "\N{RIGHT ANGLE BRACKET}": ">",
    "\N{LEFT BLACK LENTICULAR BRACKET}": "[",
    "\N{RIGHT BLACK LENTICULAR BRACKET}": "]",
    _ELLIPSIS: "...",
}
_CONTROLS = (*range(0x20), *range(0x7F, 0xA0))
_ASCII_CONTROLS = bytes(c for c in _CONTROLS if c < 0x80)
_ASCII_CONTROLS_BUT_NEWLINE = _ASCII_CONTROLS.replace(b"\n", b"")
_ASCII_LOWER = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ123456789", b"abcdefghijklmnopqrstuvwxyz000000000")


def comparable_lines(text: str) -> list[bytes]:
    """Return, for each line of `text`, the UTF-8 bytes that CCNet hashes; blank lines give no bytes.

    Lines end at newlines only and must be stripped. Lower case, every Unicode decimal digit 0, the marks of
    `PUNCTUATION` and control characters deleted. ASCII punctuation stays.
    """
    if text.isascii():
        mapped = text.encode().translate(_ASCII_LOWER, _ASCII_CONTROLS_BUT_NEWLINE)
    else:
        mapped = _map(text.lower(), _line_table()).encode("utf-8", "replace")
    return mapped.split(b"\n")


def scorable(text: str) -> str:
    """Return `text` as the language model of CCNet sees it: one line.

    Stripped, lower case, without accents (NFD without category Mn), digits 0, the marks of `PUNCTUATION` in
    ASCII, control characters deleted, and so every newline.
    """
    text = text.strip()
    if text.isascii():
        return text.encode().translate(_ASCII_LOWER, _ASCII_CONTROLS).decode("ascii")
    decomposed = unicodedata.normalize("NFD", text.lower())
    return _map(decomposed.replace(_ELLIPSIS, PUNCTUATION[_ELLIPSIS]), _score_table())


_Table = npt.NDArray[np.uint32]


def _map(text: str, table: _Table) -> str:
    mapped = table[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")]
    kept: bytes = mapped[mapped != _DELETED].astype("<u4").tobytes()
    return kept.decode("utf-32-le", "surrogatepass")


@cache
def _line_table() -> _Table:
    table = _digits_zeroed()
    table[[ord(mark) for mark in PUNCTUATION]] = _DELETED
    table[list(_CONTROLS)] = _DELETED
    table[ord("\n")] = ord("\n")
    return table


@cache
def _score_table() -> _Table:
    table = _digits_zeroed()
    for mark, ascii_mark in PUNCTUATION.items():
        if mark != _ELLIPSIS:
            table[ord(mark)] = ord(ascii_mark)
    table[list(_CONTROLS)] = _DELETED
    table[[c for c in range(0x80, _CODE_POINTS) if unicodedata.category(chr(c)) == "Mn"]] = _DELETED
    return table


def _digits_zeroed() -> _Table:
    table = np.arange(_CODE_POINTS, dtype=np.uint32)
    table[[c for c in range(_CODE_POINTS) if chr(c).isdecimal()]] = ord("0")
    return table
