"""Rows of a Posts.xml file, from bytes that are pushed in; a bad row costs that row and no other.

Entry point: `PostsParser`. The documented file is `<posts>` around one `<row Id=... Body=... />` for each
post. It is parsed with expat, which holds one row at a time; a document type or an entity declaration is a
fault. After a fault, parsing goes on at the next `<row`.
"""

from __future__ import annotations

from collections.abc import Callable
from xml.parsers import expat

from criadero.corpus.document import BadRecord

# Bodies have at most 30,000 characters on the sites; escaping makes them a few times longer.
MAX_ROW_BYTES = 1 << 22
# A file with more is no dump; the count also bounds what is kept in memory about them.
MAX_BAD_ROWS = 10_000
# Older versions of expat read an unfinished row again with each piece, so pieces are not small.
PIECE_BYTES = 1 << 16

# <posts>, <row>, and room for what else a dump may hold one day; keeps expat's stack small.
_MAX_DEPTH = 8
_ROW = b"<row "

Row = dict[str, str]


class _Refused(expat.ExpatError):
    """Well-formed XML that is not wanted; expat itself parses on to the end of the piece."""

    def __init__(self, what: str, index: int) -> None:
        super().__init__(what)
        self.index = index


class PostsParser:
    """Calls `on_row` with the attributes of each row, `on_bad` with what could not be read.

    Args:
        name: of the file, the start of the ids of bad records.
        on_row: gets the attributes, unescaped once, as XML asks for.
        on_bad: gets what is `bad_xml`, `row_too_long`, `truncated_xml`, and in the end `too_many_bad_rows`.
    """

    def __init__(
        self, name: str, *, on_row: Callable[[Row], None], on_bad: Callable[[BadRecord], None]
    ) -> None:
        self._name = name
        self._on_row = on_row
        self._on_bad = on_bad
        self._bad_rows = 0
        self._ended = False
        # What expat has not finished with, so that a search for the next row can begin at a fault.
        self._held = b""
        self._held_from = 0  # the place of its first byte in the file
        self._searching = False
        self._start_parser(0)

    @property
    def gave_up(self) -> bool:
        """Whether so much was bad that the rest is not worth reading."""
        return self._bad_rows > MAX_BAD_ROWS

    def feed(self, data: bytes | bytearray) -> None:
        """Parse the next bytes of the file."""
        view = memoryview(data)
        for start in range(0, len(data), PIECE_BYTES):
            if self.gave_up:
                return
            self._feed_piece(bytes(view[start : start + PIECE_BYTES]))

    def close(self) -> None:
        """Say that the file ended; an end in the middle is a bad record."""
        if not (self._ended or self.gave_up or self._searching):
            self._bad(self._held_from, "truncated_xml", "the file ends before </posts>")

    def _feed_piece(self, piece: bytes) -> None:
        new = len(self._held)  # where in what is held the parser has not been
        self._held += piece
        while not self.gave_up:
            if self._searching:
                new = self._find_row()
            if self._searching or self._parse(new):
                return

    def _parse(self, new: int) -> bool:
        """Give expat what is new; return whether it was well, so that all of it has been seen."""
        try:
            self._parser.Parse(memoryview(self._held)[new:], False)
        except expat.ExpatError as problem:
            index = problem.index if isinstance(problem, _Refused) else self._parser.ErrorByteIndex
            where = self._origin + max(index, 0)
            self._bad(where, "bad_xml", str(problem))
            # The place of the fault may itself be the next row; never the one that parsing began at.
            self._search_from(max(where, self._first_row + 1))
            return False
        self._hold_from(self._origin + max(self._parser.CurrentByteIndex, 0))
        if len(self._held) > MAX_ROW_BYTES:
            self._bad(self._held_from, "row_too_long", f"more than {MAX_ROW_BYTES:,} bytes")
            self._search_from(self._held_from + len(self._held))
            return False
        return True

    def _search_from(self, where: int) -> None:
        self._searching = True
        self._hold_from(where)

    def _find_row(self) -> int:
        """Begin anew at the next row of what is held, if there is one; return where parsing goes on."""
        found = self._held.find(_ROW)
        self._searching = found < 0
        if self._searching:
            self._hold_from(self._held_from + max(len(self._held) - len(_ROW) + 1, 0))
        else:
            self._hold_from(self._held_from + found)
            self._start_parser(self._held_from)
        return 0

    def _hold_from(self, where: int) -> None:
        self._held = self._held[max(where - self._held_from, 0) :]
        self._held_from = max(where, self._held_from)

    def _start_parser(self, first_row: int) -> None:
        """Make a parser for the bytes from `first_row` on; all but the first one is told it is in <posts>."""
        self._first_row = first_row
        self._depth = 0
        self._parser = parser = expat.ParserCreate("utf-8" if first_row else None)
        parser.buffer_text = False
        parser.StartElementHandler = self._start_element
        parser.EndElementHandler = self._end_element
        parser.StartDoctypeDeclHandler = self._start_doctype
        head = b"<posts>" if first_row else b""
        self._origin = first_row - len(head)
        parser.Parse(head, False)

    def _start_element(self, name: str, attributes: Row) -> None:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _Refused(f"elements nested more than {_MAX_DEPTH} deep", self._parser.CurrentByteIndex)
        if name == "row" and self._depth == 2:
            self._on_row(attributes)

    def _start_doctype(self, *_declaration: object) -> None:
        """Refuse before any entity can be declared, inside or outside of the file."""
        raise _Refused("a document type is declared, which no dump does", self._parser.CurrentByteIndex)

    def _end_element(self, _name: str) -> None:
        self._depth -= 1
        self._ended = self._ended or self._depth == 0

    def _bad(self, where: int, reason: str, detail: str) -> None:
        self._bad_rows += 1
        self._on_bad(BadRecord(f"{self._name}@{where}", reason, detail))
        if self.gave_up:
            self._on_bad(BadRecord(self._name, "too_many_bad_rows", f"more than {MAX_BAD_ROWS:,}"))
