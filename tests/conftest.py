"""What all tests share: quiet threads, no network hubs, and skips that count as failures in CI."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from tiny_run import TinyRun

# Two xdist workers share two cores; torch would start two threads in each.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell's background job ignores Ctrl-C, and so would every program that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

# How long an example takes says more about what else the machine does than about the code.
hypothesis.settings.register_profile(
    "criadero", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("criadero")

EXPECTED_SKIPS = Path(__file__).parent / "expected_skips.txt"
_skipped: dict[str, str] = {}


@pytest.fixture(autouse=True)
def _own_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin without the logging of the program, which writes to another stderr; forget what was said."""
    logger = logging.getLogger("criadero")
    logger.handlers, logger.level, logger.propagate = [], logging.NOTSET, True
    monkeypatch.setattr("criadero.notices._said", set())


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """Tokenizer and shards of a run that trains in a second."""
    from tiny_run import TinyRun

    return TinyRun.make(tmp_path_factory.mktemp("tiny"))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _note_skip(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A module may be skipped as a whole, before there is a test."""
    _note_skip(report)


def _note_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _skipped[report.nodeid] = reason


def expected_skips() -> set[str]:
    """Return the node ids that may be skipped in CI; each line is `NODEID  # reason`."""
    lines = EXPECTED_SKIPS.read_text().splitlines()
    return {line.split("#")[0].strip() for line in lines if line.strip() and not line.startswith("#")}


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    unexpected = {test: reason for test, reason in _skipped.items() if test not in expected_skips()}
    if os.environ.get("CI") and unexpected and not hasattr(session.config, "workerinput"):
        print("\nskipped in CI but not listed in tests/expected_skips.txt:")
        for test, reason in unexpected.items():
            print(f"  {test}: {reason}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
