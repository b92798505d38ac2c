"""Wikitext constructs that stretch over lines, each taken out or rewritten in one pass over the text.

Entry points: `without_comments`, `Kept` for text no markup rule may touch, `without_elements`, `contents_of`,
`without_files`, `with_tables_as_rows`, `without_tags`. All of them accept any text and take time in
proportion to its length: nothing is searched for twice behind the same place.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass, field

# Marks where something was left out, so that what stood around it can be mended; a noncharacter.
HOLE = "\ufdd2"

# Elements whose content is no text of the article.
_DROPPED = (
    "ref", "references", "gallery", "timeline", "imagemap", "score", "graph", "mapframe", "maplink",
    "inputbox",
    "templatedata", "templatestyles", "categorytree", "section", "hiero", "includeonly", "style", "script",
    "rss", "charinsert", "indicator", "chart", "phonos",
)  # fmt: skip
# Elements whose content is literal.
_LITERAL = ("nowiki", "pre", "source", "syntaxhighlight", "math", "ce", "chem")
_TAG = re.compile(r"</?[A-Za-z][A-Za-z0-9-]*(?=[\s/>])[^<>]*>?")
_BREAK = re.compile(r"<br\b[^<>]*>", re.IGNORECASE)
_BLOCK = re.compile(
    r"</?(?:p|div|blockquote|poem|li|ul|ol|dl|dd|dt|center|tr|h[1-6])\b[^<>]*>", re.IGNORECASE
)


def without_comments(text: str) -> str:
    """Remove HTML comments; one never closed goes to the end, as in MediaWiki."""
    pieces = []
    position = 0
    while (start := text.find("<!--", position)) >= 0:
        pieces.append(text[position:start])
        end = text.find("-->", start + 4)
        position = len(text) if end < 0 else end + 3
        if position < len(text) and text[position] == "\n" and (start == 0 or text[start - 1] == "\n"):
            position += 1  # a comment alone on its line takes the line with it
    return "".join([*pieces, text[position:]])


def _element(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"<(/?)({'|'.join(names)})(?=[\s/>])([^<>]*?)(/?)>", re.IGNORECASE)


_DROPPED_ELEMENT = _element(_DROPPED)
_LITERAL_ELEMENT = _element(_LITERAL)


def _replace_elements(text: str, element: re.Pattern[str], replace: Callable[[str, str, str], str]) -> str:
    """Replace elements from open to close tag by `replace(name, attributes, content)`.

    One that is opened again before it is closed, or never closed, loses only its tag.
    """
    marks = list(element.finditer(text))
    closing = _closing_tags(marks)
    pieces = []
    position = 0
    for number, mark in enumerate(marks):
        if mark.start() < position:
            continue
        pieces.append(text[position : mark.start()])
        position = mark.end()
        close = closing[number]
        if not (mark[1] or mark[4]) and close is not None:
            pieces.append(replace(mark[2].lower(), mark[3], text[mark.end() : marks[close].start()]))
            position = marks[close].end()
    return "".join([*pieces, text[position:]])


def _closing_tags(marks: list[re.Match[str]]) -> list[int | None]:
    """Return for each tag the number of the close tag that is the next tag of its name, if it is one."""
    following: dict[str, int] = {}
    result: list[int | None] = []
    for number in range(len(marks) - 1, -1, -1):
        name = marks[number][2].lower()
        after = following.get(name)
        result.append(after if after is not None and marks[after][1] else None)
        if not marks[number][4]:
            following[name] = number
    return result[::-1]


def without_elements(text: str) -> str:
    """Put a HOLE in place of references, galleries and other elements that hold no prose."""
    return _replace_elements(text, _DROPPED_ELEMENT, lambda *_: HOLE)


def contents_of(text: str, name: str) -> list[str]:
    """Return what the elements of one name hold, in order."""
    found: list[str] = []

    def keep(_name: str, _attributes: str, content: str) -> str:
        found.append(content)
        return ""

    _replace_elements(text, _element((name,)), keep)
    return found


@dataclass
class Kept:
    """Literal text, taken out of the way of all markup rules and put back at the end.

    What `<nowiki>`, `<pre>` and the like hold is literal; formulas become TeX between dollar signs. A mark
    is a number between two noncharacters, which no text may contain (Unicode 23.7).
    """

    texts: list[str] = field(default_factory=list)

    def take(self, text: str) -> str:
        """Return `text` with marks where literal text was."""
        return _replace_elements(_RESERVED.sub("", text), _LITERAL_ELEMENT, self._keep)

    def _keep(self, name: str, _attributes: str, content: str) -> str:
        if name in {"math", "ce", "chem"}:
            formula = " ".join(content.split())
            content = f"${formula}$" if formula else ""
        elif name not in {"source", "syntaxhighlight"}:
            content = html.unescape(content)
        if name not in {"pre", "source", "syntaxhighlight"}:
            content = content.replace("\n", " ")
        self.texts.append(_RESERVED.sub("", content.strip("\n")))
        return f"{_START}{len(self.texts) - 1}{_END}"

    def put_back(self, text: str) -> str:
        """Return `text` with the literal text in place of the marks."""
        return _RESERVED.sub("", _MARK.sub(lambda mark: self.texts[int(mark[1])], text))


_START, _END = "\ufdd0", "\ufdd1"
_RESERVED = re.compile(f"[{_START}{_END}{HOLE}]")
_MARK = re.compile(f"{_START}([0-9]+){_END}")
_LINK = re.compile(r"\[\[|\]\]")


def without_files(text: str, prefixes: frozenset[str]) -> str:
    """Remove links that show a file, with their captions and the links in these."""
    pieces: list[str] = []
    opened: list[int] = []  # for each open link, how many pieces there were before it
    position = 0
    for mark in _LINK.finditer(text):
        pieces.append(text[position : mark.start()])
        position = mark.end()
        if mark[0] == "[[":
            opened.append(len(pieces))
            pieces.append("[[")
        elif not opened:
            pieces.append("]]")
        else:
            first = opened.pop()
            pieces.append("]]")
            target = pieces[first + 1] if first + 1 < len(pieces) else ""
            if target.partition(":")[0].strip().casefold() in prefixes and ":" in target:
                del pieces[first:]
    return "".join([*pieces, text[position:]])


def with_tables_as_rows(text: str) -> str:
    """Write data tables (class `wikitable`) one row a line, and remove all others: boxes and layout.

    A table never closed ends at the next heading.
    """
    lines: list[str] = []
    tables: list[_Table] = []
    for line in text.split("\n"):
        bare = line.lstrip(f" \t:*#{HOLE}")
        if bare.startswith("{|"):
            tables.append(_Table(data="wikitable" in bare))
        elif not tables:
            lines.append(line)
        elif bare.startswith("|}"):
            rows = tables.pop().rows()
            if tables:
                tables[-1].add_text(" ".join(rows))
            else:
                lines += ["", *rows, "", bare[2:]]
        elif bare.startswith("==") and bare.rstrip().endswith("=="):
            lines += ["", *tables[0].rows(), "", line]
            tables.clear()
        else:
            tables[-1].add(bare)
    return "\n".join([*lines, *(tables[0].rows() if tables else ())])


_NEW_LINE = re.compile(f"{_BREAK.pattern}|{_BLOCK.pattern}", re.IGNORECASE)
_CELL = re.compile(r"\|\||!!")
_ATTRIBUTES = re.compile(r"[^|\[{]*\|(?!\|)")


@dataclass
class _Table:
    data: bool
    _rows: list[list[str]] = field(default_factory=lambda: [[]])
    _is_caption: bool = False

    def add(self, line: str) -> None:
        if line.startswith("|-"):
            self._rows.append([])
        elif line.startswith("|+"):
            self._rows += [[_cell(line[2:])], []]
        elif line.startswith(("|", "!")):
            separators = _CELL if line[0] == "!" else re.compile(r"\|\|")
            self._rows[-1] += [_cell(cell) for cell in separators.split(line[1:])]
        else:
            self.add_text(line)

    def add_text(self, text: str) -> None:
        """Continue the last cell."""
        if self._rows[-1] and text.strip():
            self._rows[-1][-1] = f"{self._rows[-1][-1]} {text.strip()}".strip()

    def rows(self) -> list[str]:
        if not self.data:
            return []
        lines = ([_NEW_LINE.sub(" ", cell) for cell in row] for row in self._rows)
        filled = ([cell for cell in row if cell.strip(f" |{HOLE}")] for row in lines)
        return [" | ".join(row) for row in filled if row]


def _cell(text: str) -> str:
    attributes = _ATTRIBUTES.match(text)
    return (text[attributes.end() :] if attributes else text).strip(f" \t{HOLE}")


def without_tags(text: str) -> str:
    """Remove HTML tags and keep what they hold; breaks and blocks begin a new line."""
    return _TAG.sub("", _BLOCK.sub("\n", _BREAK.sub("\n", text)))
