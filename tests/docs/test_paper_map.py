"""docs/paper.md names symbols and tests that exist, and every place that differs from the paper."""

from __future__ import annotations

import ast
import importlib
import re
from functools import cache

import pytest

from documented import ROOT

PAPER = ROOT / "docs" / "paper.md"
MARK = "# differs from paper:"
ITEMS, REST = PAPER.read_text().split("## What differs on purpose")
SYMBOLS = sorted(set(re.findall(r"`(criadero(?:\.\w+)+)`", ITEMS + REST)))
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py::\w+)`", ITEMS)))


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_a_symbol_of_the_map_exists(symbol: str) -> None:
    parts = symbol.split(".")
    module_parts = next(parts[:n] for n in range(len(parts), 0, -1) if is_module(parts[:n]))
    found: object = importlib.import_module(".".join(module_parts))
    for name in parts[len(module_parts) :]:
        assert hasattr(found, name)
        found = getattr(found, name)


def is_module(parts: list[str]) -> bool:
    path = ROOT.joinpath("src", *parts)
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


@pytest.mark.parametrize("test", TESTS)
def test_a_test_of_the_map_exists(test: str) -> None:
    path, _, name = test.partition("::")
    assert name in names_in(path)


@cache
def names_in(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_item_names_a_symbol_and_a_test() -> None:
    rows = [line for line in ITEMS.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 20
    assert [row for row in rows if row.count("`criadero.") != 1 or row.count("`tests/") != 1] == []


def test_the_list_of_differences_is_that_of_the_source() -> None:
    sources = sorted((ROOT / "src").rglob("*.py"))
    marked = [path.relative_to(ROOT).as_posix() for path in sources if MARK in path.read_text()]
    table = REST.split("## What the paper leaves open")[0]
    assert sorted(re.findall(r"^\| `(src/[\w/]+\.py)`", table, re.MULTILINE)) == marked


def test_the_settings_left_open_by_the_paper_are_settings() -> None:
    reference = "".join(
        (ROOT / "docs" / "reference" / name).read_text() for name in ("config.md", "recipe.md")
    )
    opened = REST.split("## What the paper leaves open")[1].split("## What is not there yet")[0]
    named = re.findall(r"`(\w+)\.(\w+)`", opened)
    assert len(named) > 20
    for section, key in named:
        assert f"| `{key}` |" in section_named(section, reference)


def section_named(name: str, reference: str) -> str:
    """The text under the heading of a section, of a table in a recipe, or of a kind of source."""
    forms = (
        rf"`\[{name}(\.NAME)?\]`",
        rf"`{name}`( of kind `\w+`)?",
        rf"`\[sources\.NAME\]` of kind `{name}`",
    )
    headings = [line for line in reference.splitlines() if re.fullmatch(rf"##+ ({'|'.join(forms)})", line)]
    assert len(headings) == 1, name
    return reference.split(f"{headings[0]}\n")[1].split("\n## ", maxsplit=1)[0].split("\n### ", maxsplit=1)[0]
