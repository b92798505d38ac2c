"""In CI a skip that nobody listed fails the run, also of a whole module and with parallel workers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parent / "conftest.py"
ONE_TEST = "import pytest\ndef test_a(): pytest.skip('no such device')\ndef test_b(): pass\n"
WHOLE_MODULE = "import pytest\npytest.skip('no such library', allow_module_level=True)\n"
BOTH = "# why\ntest_one.py::test_a  # no device\n\ntest_whole.py  # no library\n"


def run(folder: Path, expected: str, *options: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(CONFTEST, folder)
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "expected_skips.txt").write_text(expected)
    (folder / "test_one.py").write_text(ONE_TEST)
    (folder / "test_whole.py").write_text(WHOLE_MODULE)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("CI", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
    return subprocess.run(
        command,
        cwd=folder,
        env=environment | {"CI": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["alone", "parallel"])
def test_skips_that_are_not_listed_fail_the_run_and_are_named(tmp_path: Path, options: tuple[str, ...]):
    done = run(tmp_path, "", *options)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "  test_one.py::test_a: Skipped: no such device" in done.stdout
    assert "  test_whole.py: Skipped: no such library" in done.stdout


def test_skips_that_are_listed_pass(tmp_path: Path):
    done = run(tmp_path, BOTH)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not listed" not in done.stdout
