"""The uncut run that every interrupted one is compared with; two conftest.py import its fixtures."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.outcome import Outcome, outcome_of
from faults.program import run
from tiny_run import TinyRun


@pytest.fixture(scope="session")
def uncut_folder(tiny: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of 20 steps in one go; tests copy it before they change anything."""
    folder = tmp_path_factory.mktemp("uncut")
    ended = run("train", tiny.config(folder), folder=folder)
    assert ended.code == 0, ended.err
    return folder / "run"


@pytest.fixture(scope="session")
def uncut(uncut_folder: Path) -> Outcome:
    return outcome_of(uncut_folder)
