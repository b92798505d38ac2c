"""docs/reference says what the program says."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from criadero.corpus.config import KINDS, recipe_module

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_reference", REFERENCE / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return load_generator().pages()


@pytest.mark.parametrize("name", ["api.md", "cli.md", "config.md", "errors.md", "recipe.md"])
def test_a_generated_page_is_what_the_program_says_now(name: str, pages: dict[str, str]) -> None:
    assert (REFERENCE / name).read_text() == pages[name], "run `python docs/reference/generate.py`"


def test_every_page_is_checked(pages: dict[str, str]) -> None:
    assert {path.name for path in REFERENCE.glob("*.md")} == {*pages, "formats.md"}


def test_every_setting_says_what_it_means(pages: dict[str, str]) -> None:
    rows = [line for name in ("config.md", "recipe.md") for line in rows_of(pages[name])]
    assert len(rows) > 140
    assert [row for row in rows if row.endswith("|  |")] == []


def rows_of(page: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith("| `")]


def test_every_kind_of_source_and_each_of_its_settings_is_on_the_page_of_recipes(
    pages: dict[str, str],
) -> None:
    for kind, (_, name) in KINDS.items():
        section = pages["recipe.md"].split(f"## `[sources.NAME]` of kind `{kind}`\n")[1].split("\n## ")[0]
        own = getattr(recipe_module(kind), name).model_fields
        listed = {line.split("`")[1] for line in rows_of(section)}
        assert set(own) <= listed


def test_a_page_that_drifted_fails_the_check_and_is_named(tmp_path: Path) -> None:
    copy = tmp_path / "docs" / "reference"
    copy.mkdir(parents=True)
    for path in REFERENCE.iterdir():
        if path.is_file():
            (copy / path.name).write_text(path.read_text())
    (copy / "errors.md").write_text("something else")
    command = [sys.executable, str(copy / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("differ: ")
    assert "errors.md" in done.stderr
    assert (copy / "errors.md").read_text() == "something else"
