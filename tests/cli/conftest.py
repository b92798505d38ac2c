"""The program inside the test's process: what it printed where, and its exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Outcome:
    """Exit code and output of one call."""

    code: int
    stdout: str
    stderr: str


Program = Callable[..., Outcome]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Program]:
    """Return a function that runs `criadero ARGUMENTS...`; the signal handler is put back."""
    from criadero.cli.app import main

    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["criadero", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
        return Outcome(code, *capsys.readouterr())

    yield run
    signal.signal(signal.SIGTERM, before)
