"""Bytes of a book as text: UTF-8, else the encoding the file declares, else what old files were written in.

Entry point: `decode`.
"""

from __future__ import annotations

import codecs
import re

_DECLARED = re.compile(
    rb"(?:character set encoding:[ \t]*|<\?xml[^>]{0,80}encoding=[\"']|charset=[\"']?)([\w.-]{2,20})",
    re.I,
)
# Other codecs of Python are no encodings of text, or must not be chosen by a file.
_ALLOWED = re.compile(
    r"iso-?8859-\d+|windows-125\d|cp\d{3,4}|mac-?roman|macintosh|koi8-[ru]|big5|gbk|gb18030"
    r"|gb2312|shift_?jis|euc-(?:jp|kr)|utf-16"
)
_HEAD_BYTES = 8192
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def decode(data: bytes) -> str:
    """Return text for any bytes, with lines ending in one newline character.

    Latin-1 and ASCII are read as Windows-1252, which only adds to them (WHATWG Encoding 4.2).
    """
    text = _decoded(data).removeprefix("\ufeff")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decoded(data: bytes) -> str:
    marked = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)
    declared = _DECLARED.search(data[:_HEAD_BYTES])
    name = declared[1].decode("ascii", "replace").lower() if declared else ""
    candidates = [marked or "utf-8"]
    if _ALLOWED.fullmatch(name) and name not in {"iso-8859-1", "iso8859-1"}:
        candidates.append(name)
    for encoding in [*candidates, "cp1252"]:
        try:
            return data.decode(encoding)
        except (UnicodeError, LookupError):
            continue
    return data.decode("latin-1")
