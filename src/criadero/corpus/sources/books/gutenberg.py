"""What Project Gutenberg puts around a book: header, licence, credits of its makers; found and taken off.

Entry points: `without_boilerplate` for the text of the book, `header_fields` for title, author, language and
number. The marks changed over fifty years: `*** START OF THE PROJECT GUTENBERG EBOOK`, before 2001 the end of
the "small print", and at the end of the book a mark, a plain line, or the licence itself.
"""

from __future__ import annotations

import re

_FLAGS = re.IGNORECASE | re.MULTILINE
_START = re.compile(r"^[ \t]*\*{2,3} ?START OF (?:TH(?:E|IS) )?(?:COPYRIGHTED )?PROJECT GUTENBERG.*$", _FLAGS)
_SMALL_PRINT_END = re.compile(r"^[ \t]*\*END[ *]*THE SMALL PRINT!.*$", _FLAGS)
_END = re.compile(
    r"""^[ \t]*(?:
        \*{2,3}[ ]?END[ ]OF[ ](?:TH(?:E|IS)[ ])?(?:COPYRIGHTED[ ])?PROJECT[ ]GUTENBERG
      | \*{3}[ ]?START:?[ ]FULL[ ]LICENSE
      | \*{3}START\*{2}THE[ ]SMALL[ ]PRINT!
      | End[ ]of[ ](?:th(?:e|is)[ ])?Project[ ]Gutenberg\b
      | (?:Ende|Fin|Fine|Einde|Fim|Slut)[ ][ \w'’]{0,20}\bPro[jyg]\w+[ ]Gutenberg
    )""",
    _FLAGS | re.VERBOSE,
)
# A mark of the old header stands in its first pages; in a book of any length it would be a quotation.
_MAX_HEADER_CHARACTERS = 40_000
_FIELD = re.compile(r"^(Title|Author|Language):[ \t]*(.+(?:\n[ \t]{4,}\S.*)*)", re.MULTILINE)
_NUMBER = re.compile(r"\[(?:E-?(?:Book|text)) ?#(\d+)\]", re.IGNORECASE)

_OPENING = r"[\s\[(*_|+=-]*"
_CREDIT = re.compile(
    _OPENING
    + r"""(?:
        (?:(?:this[ ])?(?:e-?)?(?:text|book|file)[ ])?(?:was[ ]|has[ ]been[ ])?
            (?:first[ ])?(?:produced|prepared|scanned|transcribed|typed|digitized|digitised|proofread|proofed|
            converted|created|contributed|donated|edited)\b
            [\w, ]{0,60}\b(?:by|from)\b
      | (?:html|text|ascii|plain[ ]text)[ ]version[ ](?:produced[ ]|prepared[ ])?by\b
      | additional[ ](?:editing|proof(?:ing|reading)|formatting)[ ]by\b
      | credits?:\s | (?:online[ ])?distributed[ ]proofread
      | (?:note:[ ])?project[ ]gutenberg[ ](?:also[ ])?has\b
      | (?:note:[ ])?images[ ]of[ ](?:the|some)\b.{0,80}\bavailable
      | this[ ](?:file|e-?(?:text|book))[ ]was[ ]produced[ ]from[ ]images
    )""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_NOTE = re.compile(_OPENING + r"transcriber(?:['’]?s|s['’])?[ ]notes?\b", re.IGNORECASE)
_LAST_NOTE = re.compile(r"^[ \t\[*_]*transcriber(?:['’]?s|s['’])?[ ]notes?\b", _FLAGS)
_MAX_LAST_NOTE_CHARACTERS = 10_000
_MAKERS = re.compile(r"gutenberg|proofread|pgdp", re.IGNORECASE)
_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_LOOKED_AT = 12
_MAX_CREDIT_CHARACTERS = 800
_MAX_NOTE_PARAGRAPHS = 10


def without_boilerplate(text: str) -> str:
    """Return the book without header, footer and credits; a text without Gutenberg's marks as it is.

    Of such a text too, a first paragraph that credits Gutenberg's own proofreaders is removed, as others who
    took the header off left it.
    """
    start, stop = _book(text)
    book = text[start:stop].strip("\n")
    marked = start > 0 or stop < len(text)
    if marked and (
        note := _LAST_NOTE.search(book, max(len(book) // 2, len(book) - _MAX_LAST_NOTE_CHARACTERS))
    ):
        book = book[: note.start()]
    return _without_credits(book, marked=marked)


def header_fields(text: str) -> dict[str, str]:
    """Return title, author, language and number as a Gutenberg header gives them; empty without one."""
    start, _ = _book(text)
    header = text[:start]
    found = {name.lower(): " ".join(value.split()) for name, value in reversed(_FIELD.findall(header))}
    if number := _NUMBER.search(header):
        found["gutenberg"] = number[1]
    return found


def _book(text: str) -> tuple[int, int]:
    start = 0
    if (mark := _START.search(text)) is not None:
        start = mark.end() if "**" in mark[0].lstrip(" \t*") else _end_of_wrapped(text, mark.end())
    elif (mark := _SMALL_PRINT_END.search(text, 0, _MAX_HEADER_CHARACTERS)) is not None:
        start = mark.end()
    end = _END.search(text, start)
    return start, end.start() if end is not None else len(text)


def _end_of_wrapped(text: str, line_end: int) -> int:
    """Return where a mark ends whose title goes on in the next lines, up to their asterisks."""
    position = line_end
    for line in text[line_end : line_end + 400].split("\n")[1:4]:
        position += 1 + len(line)
        if line.rstrip().endswith("**"):
            return position
    return line_end


def _without_credits(book: str, *, marked: bool) -> str:
    """Drop credits and transcriber's notes among the first paragraphs, keep all others as they stand."""
    kept: list[str] = []
    position = 0
    note_left = 0
    for number, gap in enumerate(_PARAGRAPH.finditer(book)):
        paragraph = book[position : gap.start()]
        if number >= _LOOKED_AT and not note_left:
            break
        if note_left:
            note_left = 0 if "]" in paragraph else note_left - 1
        elif marked and _NOTE.match(paragraph):
            note_left = _paragraphs_of_note(paragraph)
        elif not _is_credit(paragraph, marked=marked):
            kept.append(book[position : gap.end()])
        position = gap.end()
    return "".join([*kept, book[position:]]).strip("\n")


def _paragraphs_of_note(paragraph: str) -> int:
    """Return how many paragraphs more a note may last: to its closing bracket, or one after a bare title."""
    if "[" in paragraph:
        return 0 if "]" in paragraph else _MAX_NOTE_PARAGRAPHS
    return 1 if len(paragraph.strip(" \n|+-_*=")) < 40 else 0


def _is_credit(paragraph: str, *, marked: bool) -> bool:
    if len(paragraph) > _MAX_CREDIT_CHARACTERS or not _CREDIT.match(paragraph):
        return False
    return marked or _MAKERS.search(paragraph) is not None
