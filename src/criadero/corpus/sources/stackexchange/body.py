"""The HTML of a post as plain text: code blocks as they are, lists as `- `, links as their text, no images.

Entry point: `html_to_text`. One pass over tags and text without a tree, so that no nesting can make it slow.
The sites let only a short list of tags through and no `<` or `>` inside of one.
"""

from __future__ import annotations

import html
import re

_TAG = re.compile(r"<!--|<(/?)([a-zA-Z][a-zA-Z0-9]*)(?:[\s/][^<>]*)?>")
# More digits than any character has; `html.unescape` would make an integer of all of them.
_LONG_REFERENCE = re.compile(r"&#(?:[0-9]{8,}|[xX][0-9a-fA-F]{7,});?")
_BLOCKS = frozenset(
    {"address", "article", "blockquote", "details", "div", "dl", "dt", "dd", "figure", "h1", "h2", "h3", "h4"}
    | {"h5", "h6", "hr", "p", "pre", "section", "summary", "table"}
)
_CELLS = frozenset({"td", "th"})
# Lists nested deeper are indented no further: indents of n levels have n * n characters.
_MAX_INDENT = 16
_HIDDEN = frozenset({"script", "style"})


def html_to_text(markup: str) -> str:
    """Return the text of the HTML of one post, entities unescaped once.

    Paragraphs are separated by a blank line; in lists, items and their paragraphs by a line end.
    """
    renderer = _Renderer()
    position = 0
    closes = True  # whether a comment further on can end
    while match := _TAG.search(markup, position):
        renderer.text(markup[position : match.start()])
        position = match.end()
        if match[2] is None:
            end = markup.find("-->", position) if closes else -1
            closes = end >= 0
            position = end + 3 if closes else position
        else:
            renderer.tag(match[2].lower(), opens=not match[1])
    renderer.text(markup[position:])
    return renderer.finished()


class _Renderer:
    def __init__(self) -> None:
        self._parts: list[str] = []
        self._line_ends = 0  # owed before the next text
        self._blank = False  # owed before the next text of this line
        self._bullet = False  # owed by an item without text so far
        self._lists = 0
        self._preformatted = False
        self._hidden = False
        self._code_begins = False

    def finished(self) -> str:
        """Return the text so far."""
        return "".join(self._parts).strip("\n")

    def text(self, data: str) -> None:
        """Take text between two tags, still escaped."""
        if not data or self._hidden:
            return
        if "&" in data:
            data = html.unescape(_LONG_REFERENCE.sub("\ufffd", data))
        if self._preformatted:
            self._code(data.replace("\r\n", "\n"))
        else:
            self._prose(data)

    def tag(self, name: str, *, opens: bool) -> None:
        """Take a tag."""
        if name in _HIDDEN:
            self._hidden = opens
        elif name == "pre":
            self._line_ends = 0 if self._preformatted else self._line_ends
            self._block()
            self._preformatted = self._code_begins = opens
        elif self._preformatted:
            return
        elif name in _BLOCKS:
            self._block()
        elif name in {"ul", "ol"}:
            self._block()
            self._lists = max(self._lists + (1 if opens else -1), 0)
        elif name == "li":
            self._line_ends = max(self._line_ends, 1)
            self._bullet = opens and self._lists > 0
        elif name in {"br", "tr"}:
            self._line_ends = max(self._line_ends, 1)
            self._blank = False
        elif name in _CELLS and not opens:
            self._blank = True

    def _block(self) -> None:
        self._line_ends = max(self._line_ends, 1 if self._lists else 2)
        self._blank = False

    def _prose(self, data: str) -> None:
        words = " ".join(data.split())
        if not words:
            self._blank = self._blank or bool(data)
            return
        self._begin(blank=data[0].isspace())
        self._parts.append(words)
        self._blank = data[-1].isspace()

    def _code(self, data: str) -> None:
        if self._code_begins:
            # HTML ignores a line end right after <pre>, and the sites write one at the end of each block.
            data = data.removeprefix("\n")
            self._code_begins = not data
        if data:
            self._begin(blank=False, code=True)
            kept = data.rstrip("\n")
            self._parts.append(kept)
            self._line_ends = len(data) - len(kept)

    def _begin(self, *, blank: bool, code: bool = False) -> None:
        """Write what is owed before a text: line ends, the bullet or indent of a list item, or a blank."""
        if self._line_ends or not self._parts:
            self._parts.append("\n" * self._line_ends if self._parts else "")
            if self._bullet or (self._lists and not code):
                depth = min(self._lists, _MAX_INDENT)
                self._parts.append("  " * (depth - 1) + ("- " if self._bullet else "  "))
        elif self._blank or blank:
            self._parts.append(" ")
        self._line_ends, self._blank, self._bullet = 0, False, False
