"""Links inside the documentation lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from documented import ROOT

OUR_FOLDERS = ("docs", "samples", "benchmarks")
PAGES = sorted([*ROOT.glob("*.md"), *(page for name in OUR_FOLDERS for page in (ROOT / name).rglob("*.md"))])
PAGES = [page for page in PAGES if ".venv" not in page.parts]
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")
TEST_OR_SOURCE = re.compile(r"`((?:tests|src|docs|configs|benchmarks)/[\w./-]+\.\w+)(?:::(\w+))?`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text()
    links = {target for target, _ in LINK.findall(text) if target and "://" not in target}
    assert [target for target in sorted(links) if not (page.parent / target).exists()] == []
    named = {path for path, _ in TEST_OR_SOURCE.findall(text)}
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_every_page_of_docs_can_be_reached_from_its_index() -> None:
    seen, waiting = set(), [ROOT / "docs" / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        targets = [(page.parent / target).resolve() for target, _ in LINK.findall(page.read_text()) if target]
        waiting += [path for path in targets if path.suffix == ".md" and path.exists()]
        waiting += [path for folder in targets if folder.is_dir() for path in folder.glob("*.md")]
    assert set((ROOT / "docs").rglob("*.md")) - seen == set()
