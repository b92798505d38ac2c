"""Measures as the `convert` template of Wikipedia writes them: the quantity given, not the one computed.

Entry point: `measure`. "100 km", "5 to 10 km", "3 ft 6 in". The converted quantity is left out: its rounding
has rules of its own, and the sentence is whole without it.
"""

from __future__ import annotations

import re

from criadero.corpus.sources.wikipedia.expand import Arguments

# Codes of units that are not written as they are; all others are.
_WRITTEN = {
    "sqmi": "sq mi", "mi2": "sq mi", "sqft": "sq ft", "ft2": "sq ft", "sqin": "sq in", "in2": "sq in",
    "sqyd": "sq yd", "km2": "km²", "m2": "m²", "cm2": "cm²", "mm2": "mm²", "sqkm": "km²", "sqm": "m²",
    "km3": "km³", "m3": "m³", "cm3": "cm³", "mm3": "mm³", "cc": "cm³", "cuft": "cu ft", "ft3": "cu ft",
    "cuin": "cu in", "in3": "cu in", "cumi": "cu mi", "cuyd": "cu yd", "C": "°C", "F": "°F", "K": "K",
    "C-change": "°C", "F-change": "°F", "acre": "acres", "hectare": "hectares", "mile": "miles",
    "foot": "feet",
    "inch": "inches", "yard": "yards", "metre": "metres", "meter": "meters", "kilometre": "kilometres",
    "USgal": "US gallons", "impgal": "imperial gallons", "U.S.gal": "US gallons", "lbs": "lb", "lb-f": "lbf",
    "kn": "knots", "kph": "km/h", "km/hr": "km/h", "nmi": "nautical miles", "nautical mile": "nautical miles",
    "LT": "long tons", "ST": "short tons", "tonne": "tonnes", "ton": "tons", "MT": "t",
    "AU": "AU", "ly": "light-years", "pc": "parsecs",
    "ftin": "ft", "m/s2": "m/s²", "kg/m3": "kg/m³", "g/cm3": "g/cm³",
    "Tcuft": "trillion cubic feet", "Bcuft": "billion cubic feet", "e6cuft": "million cubic feet",
    "e6acre": "million acres", "e6ha": "million hectares", "e6sqkm": "million km²", "e6km2": "million km²",
    "PD/sqmi": "per square mile", "/sqmi": "per square mile", "/km2": "per km²", "PD/km2": "per km²",
    "um": "μm",
}  # fmt: skip
_BETWEEN = {
    "to": "to", "-": "–", "–": "–", "and": "and", "or": "or", "by": "by", "x": "×", "×": "×",
    "xx": "×", "*": "×",
    "+/-": "±", "±": "±", "to(-)": "to", "to about": "to about", "and(-)": "and", ",": ",", "/": "/",
}  # fmt: skip
_NUMBER = re.compile(r"[-+−±]?[0-9][0-9.,   ]*(?:[eE][-+]?[0-9]+|(?:[+⁄/][0-9]+)+)?(?://?[0-9]+)?")


def measure(a: Arguments, *, grouped: bool = False) -> str:
    """Return the quantity that a `convert` template is given, with its unit.

    Args:
        a: of the template: number, perhaps a word such as `to` and another number, unit.
        grouped: whether to write thousands as 1,234.
    """
    places = [place.replace("&nbsp;", " ") for place in a.places]
    pieces: list[str] = []
    number = ""
    while places and _NUMBER.fullmatch(places[0]):
        number = places.pop(0)
        pieces.append(_number(number, grouped))
        if places and places[0] in _BETWEEN:
            pieces.append(_BETWEEN[places.pop(0)])
            continue
        if places:
            pieces.append(_unit(places.pop(0), pieces, number))
        if not (
            len(places) >= 2 and _NUMBER.fullmatch(places[0]) and _is_smaller_unit(pieces[-1], places[1])
        ):
            break
    if not pieces:
        return a.get(1)
    return " ".join(piece for piece in pieces if piece).replace(" – ", "–").replace(" , ", ", ")


def _number(text: str, grouped: bool) -> str:
    if "/" in text:
        return text.replace("+", " ")
    return f"{int(text):,}" if grouped and len(text) < 20 and text.isdecimal() else text


def _unit(code: str, pieces: list[str], number: str) -> str:
    unit = _WRITTEN.get(code, code)
    return unit.removesuffix("s") if number == "1" and len(pieces) == 1 and code not in {"lbs"} else unit


def _is_smaller_unit(unit: str, next_code: str) -> bool:
    """Whether "3 ft" can go on with "6 in"; else the next number is a precision."""
    return (unit, next_code) in {
        ("ft", "in"), ("lb", "oz"), ("st", "lb"), ("mi", "yd"), ("yd", "ft"), ("mi", "ft"), ("mi", "chain"),
        ("miles", "yd"), ("long tons", "cwt"), ("feet", "inch"), ("foot", "inch"), ("foot", "in"),
        ("feet", "in"),
    }  # fmt: skip
