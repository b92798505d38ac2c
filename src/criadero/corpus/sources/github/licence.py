"""Under which licence a repository or a file is: SPDX expressions, licence texts, and headers that say so.

Entry points: `allows` for an expression, `of_text` for a LICENSE file, `of_metadata` for the files in which
packages declare theirs, `of_header` for the comments at the top of a file. What none of them knows is
unknown, which is never allowed.
"""

from __future__ import annotations

import email.parser
import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

from criadero.corpus.sources.github.licence_texts import TEXTS

PERMISSIVE = ("Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause")
MIN_DICE = 0.95
# Longer than any licence and its appendices.
MAX_TEXT_CHARACTERS = 1 << 16
MAX_METADATA_BYTES = 1 << 22

# Names that packages and the licences table of BigQuery use, in lower case.
_NAMES = {
    "apache-2.0": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "mit": "MIT",
    "mit license": "MIT",
    "mit-0": "MIT-0",
    "mit no attribution license (mit-0)": "MIT-0",
    "0bsd": "0BSD",
    "zero-clause bsd (0bsd)": "0BSD",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "bsd 2-clause license": "BSD-2-Clause",
}
# A family, not a licence: the text decides.
_FAMILIES = {"bsd license", "bsd", "apache", "osi approved", ""}
_SPDX_LINE = re.compile(r"SPDX-License-Identifier:[ \t]*([^\r\n]+)")
_TOKEN = re.compile(r"[()]|[^\s()]+")
# Without digits: clauses are numbered in several ways.
_WORD = re.compile(r"[a-z]+")
_NOT_OF_THE_TEXT = re.compile(
    r"(?m)^\W*(copyright\b(?!\W+(holder|owner|notice|licen|statement|and\b|or\b))|\(c\)|all rights reserved"
    r"|©).*$",
    re.IGNORECASE,
)
_OTHERS = re.compile(
    r"""\b(GNU\ (Lesser\ |Library\ |Affero\ )?General\ Public|[AL]?GPL(v?\d|\b)|MPL\W?\d|Mozilla\ Public
    |Eclipse\ Public\ License|EPL\W?\d|Common\ Development\ and\ Distribution|CDDL|Creative\ Commons|CC\W?BY
    |Server\ Side\ Public\ License|Business\ Source\ License|Commons\ Clause|proprietary|confidential)""",
    re.IGNORECASE | re.VERBOSE,
)
_CHOICE = re.compile(r"\b(dual|dually|either|choice of|alternatively)\b", re.IGNORECASE)
_PERMISSIVE_NAME = re.compile(r"\b(MIT|BSD|Apache)\b")


@dataclass(frozen=True, slots=True)
class Licence:
    """What a repository is licensed under.

    Attributes:
        expression: of SPDX identifiers.
        found_in: `metadata`, `text` or `spdx_line`.
    """

    expression: str
    found_in: str


def allows(expression: str, allowed: Collection[str]) -> bool:
    """Tell whether an SPDX expression can be met with `allowed` licences alone.

    One of the sides of `OR`, all of `AND`; an exception after `WITH` only ever permits more. Anything that is
    no such expression is not allowed.
    """
    tokens = _TOKEN.findall(expression)[:200]
    value, rest = _either(tokens, {name.lower() for name in allowed}, 0)
    return value and not rest


def _either(tokens: list[str], allowed: Collection[str], depth: int) -> tuple[bool, list[str]]:
    value, rest = _both(tokens, allowed, depth)
    while rest and rest[0].upper() == "OR":
        other, rest = _both(rest[1:], allowed, depth)
        value = value or other
    return value, rest


def _both(tokens: list[str], allowed: Collection[str], depth: int) -> tuple[bool, list[str]]:
    value, rest = _one(tokens, allowed, depth)
    while rest and rest[0].upper() == "AND":
        other, rest = _one(rest[1:], allowed, depth)
        value = value and other
    return value, rest


def _one(tokens: list[str], allowed: Collection[str], depth: int) -> tuple[bool, list[str]]:
    if not tokens or depth > 20 or tokens[0].upper() in {")", "AND", "OR", "WITH"}:
        return False, ["?"]
    if tokens[0] == "(":
        value, rest = _either(tokens[1:], allowed, depth + 1)
        return (value, rest[1:]) if rest[:1] == [")"] else (False, ["?"])
    rest = tokens[3:] if len(tokens) > 2 and tokens[1].upper() == "WITH" else tokens[1:]
    return tokens[0].lower() in allowed, rest


def of_name(name: str) -> str | None:
    """Return the SPDX expression a declared licence means, None where the name leaves it open."""
    plain = name.strip().lower()
    if plain in _FAMILIES or "\n" in plain or len(plain) > 200:
        return None
    return _NAMES.get(plain, name.strip())


def of_text(text: str) -> str | None:
    """Return the licence whose text `text` is, None if it is none of those known.

    Compared are pairs of neighbouring words, by Dice's coefficient, without copyright lines.
    """
    pairs = _pairs(text[:MAX_TEXT_CHARACTERS])
    best = max(_templates().items(), key=lambda item: _dice(pairs, item[1]))
    return best[0] if _dice(pairs, best[1]) >= MIN_DICE else None


def _pairs(text: str) -> Counter[tuple[str, str]]:
    text = _NOT_OF_THE_TEXT.sub("", text)
    # The appendix of Apache-2.0 tells how to apply it.
    text = text.partition("END OF TERMS AND CONDITIONS")[0]
    words = _WORD.findall(text.lower())
    return Counter(pairwise(words))


def _dice(one: Counter[tuple[str, str]], other: Counter[tuple[str, str]]) -> float:
    total = one.total() + other.total()
    return 2 * (one & other).total() / total if total else 0.0


@cache
def _templates() -> dict[str, Counter[tuple[str, str]]]:
    return {name: _pairs(text) for name, text in TEXTS.items()}


def of_metadata(path: str, data: bytes) -> str | None:
    """Return the licence that a package's own metadata declares: METADATA, PKG-INFO or package.json."""
    if len(data) > MAX_METADATA_BYTES:
        return None
    if PurePosixPath(path).name == "package.json":
        return _of_package_json(data)
    return _of_core_metadata(data)


def _of_package_json(data: bytes) -> str | None:
    try:
        package = json.loads(data)
    except (ValueError, RecursionError):
        return None
    declared: Any = package.get("license") if isinstance(package, Mapping) else None
    if isinstance(declared, Mapping):  # how it was written before 2014
        declared = declared.get("type")
    return of_name(declared) if isinstance(declared, str) else None


def _of_core_metadata(data: bytes) -> str | None:
    head = data.replace(b"\r\n", b"\n").partition(b"\n\n")[0].decode("utf-8", "replace")
    fields = email.parser.HeaderParser().parsestr(head)
    if expression := of_name(str(fields.get("License-Expression", ""))):
        return expression
    prefix = "License :: OSI Approved :: "
    classifiers = [str(value) for value in fields.get_all("Classifier", [])]
    names = [of_name(c.removeprefix(prefix)) for c in classifiers if c.startswith(prefix)]
    if names and all(name is not None and name.lower() in _NAMES for name in names):
        return " AND ".join(str(name) for name in names)
    declared = of_name(str(fields.get("License", "")))
    return declared if declared and declared.lower() in _NAMES else None


def of_header(comments: str) -> str | None:
    """Return the SPDX expression in the comments at the top of a file, if they hold one."""
    found = _SPDX_LINE.search(comments)
    if not found:
        return None
    return re.sub(r"\s*(\*/|-->|\*\)|-\})?\s*$", "", found[1])


def named_otherwise(comments: str) -> str | None:
    """Return the name of a licence of another kind in the comments at the top of a file.

    Not where the header leaves the choice between it and a permissive one.
    """
    found = _OTHERS.search(comments)
    if found is None or (_CHOICE.search(comments) and _PERMISSIVE_NAME.search(comments)):
        return None
    return found[0]
