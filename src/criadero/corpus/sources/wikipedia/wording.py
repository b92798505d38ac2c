"""What a template says, given its arguments: the building blocks of the tables in `templates`.

Each function takes a template's arguments and returns its text, empty where it says nothing; those with
parameters return such a function. Dates are written as the English templates do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from criadero.corpus.sources.wikipedia.expand import Arguments

Text: TypeAlias = Callable[[Arguments], str]

_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


def first(a: Arguments) -> str:
    """Return the first argument by place; of `{{nowrap|x = 1}}`, which names it by accident, all of it."""
    if not a.places and len(a.names) == 1:
        return " = ".join(next(iter(a.names.items())))
    return a.get(1)


def second(a: Arguments) -> str:
    """Return the second argument by place."""
    return a.get(2)


def second_or_first(a: Arguments) -> str:
    """Return the second argument, or the first where that is empty."""
    return a.get(2) or a.get(1)


def last(a: Arguments) -> str:
    """Return the last argument by place."""
    return a.places[-1] if a.places else ""


def always(text: str) -> Text:
    """Return a template that always says `text`."""
    return lambda _: text


def around(before: str, after: str = "") -> Text:
    """Return a template that says its first argument between two texts, nothing without it."""
    return lambda a: f"{before}{a.get(1)}{after}" if a.get(1) else ""


def joined(separator: str) -> Text:
    """Return a template that says all its arguments by place."""
    return lambda a: separator.join(place for place in a.places if place)


def quotation(a: Arguments) -> str:
    """Return a quotation on its own lines."""
    text = a.names.get("text") or a.names.get("quote") or a.names.get("1") or a.get(1)
    return f"\n{text}\n" if text else ""


def bulleted(a: Arguments) -> str:
    """Return the arguments as a list."""
    return "".join(f"\n* {place}" for place in a.places if place) + "\n"


def named(*names: str) -> Text:
    """Return a template that says the first of these named arguments that is given, or its first by place."""
    return lambda a: next((a.names[name] for name in names if a.names.get(name)), a.get(1))


def _month(text: str) -> str:
    return _MONTHS[int(text) - 1] if text.isdecimal() and 1 <= int(text) <= 12 else text


def _date(places: tuple[str, ...], *, day_first: bool) -> str:
    year, month, day = (*places, "", "", "")[:3]
    month, day = _month(month), day.lstrip("0")
    if day and month and not day_first:
        return f"{month} {day}, {year}".removesuffix(", ")
    return " ".join(part for part in (day, month, year) if part)


def date(a: Arguments) -> str:
    """Return year, month and day as a date."""
    return _date(a.places[:3], day_first="df" in a.names)


def as_of(a: Arguments) -> str:
    """Return "As of January 2010"."""
    lower = a.names.get("lc", "") not in {"", "n", "no"}
    if a.names.get("alt"):
        return a.names["alt"]
    words = ("since" if lower else "Since") if "since" in a.names else ("as of" if lower else "As of")
    return f"{words} {_date(a.places[:3], day_first='df' in a.names)}".rstrip()


def fraction(a: Arguments) -> str:
    """Return "1/2", "2 1/3" or, of one argument, "1/n"."""
    places = [place for place in a.places if place][:3]
    if len(places) == 3:
        return f"{places[0]} {places[1]}/{places[2]}"
    return "/".join(places) if len(places) == 2 else f"1/{places[0]}" if places else ""


def value(a: Arguments) -> str:
    """Return a number with its uncertainty, power of ten and unit ({{val}})."""
    text = a.get(1)
    if a.get(2):
        text += f" ± {a.get(2)}"
    if a.names.get("e"):
        text += f" × 10^{a.names['e']}"
    unit = a.names.get("u") or a.names.get("ul") or ""
    return f"{a.names.get('p', '')}{text} {unit}".strip() if text else ""


def nihongo(a: Arguments) -> str:
    """Return "English (kanji, romaji)"."""
    inside = ", ".join(part for part in (a.get(2), a.get(3)) if part)
    return f"{a.get(1)} ({inside})".strip() if inside else a.get(1)


def chinese(a: Arguments) -> str:
    """Return the first of the spellings a {{zh}} template gives."""
    return next((a.names[key] for key in ("c", "t", "s", "p", "hp") if a.names.get(key)), a.get(1))


def link_elsewhere(a: Arguments) -> str:
    """Return the text of a link to another Wikipedia: `lt`, else the title."""
    return a.names.get("lt") or a.names.get("display") or a.get(1)


def money(sign: str) -> Text:
    """Return a template for an amount of money."""
    return lambda a: f"{sign}{a.get(1)}" if a.get(1) else sign


def years(prefix: str) -> Text:
    """Return a template for one year or two, such as "r. 1837–1901"."""
    return lambda a: f"{prefix} {'–'.join(p for p in a.places[:2] if p)}".strip()


def century(word: str) -> Text:
    """Return a template for "XIXe siècle"."""
    return lambda a: f"{a.get(1)}{a.get(2) or 'e'} {word}" if a.get(1) else ""


def after_word(word: str) -> Text:
    """Return a template that says a word and its first argument, such as "USS Maine"."""
    return lambda a: f"{word} {a.get(1)}".strip()
