"""The first signal is a wish, the second one ends the process, and the old handlers come back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from criadero.train.stop import StopFlag


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_sets_the_flag_and_the_old_handler_comes_back(number: signal.Signals):
    before = signal.getsignal(number)
    with StopFlag().on_signals() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
    assert signal.getsignal(number) is before


TWICE = """
import os, signal
from criadero.train.stop import StopFlag
with StopFlag().on_signals():
    os.kill(os.getpid(), signal.{first})
    print("still here", flush=True)
    os.kill(os.getpid(), signal.{second})
    print("never", flush=True)
"""


@pytest.mark.parametrize(("first", "second"), [("SIGTERM", "SIGTERM"), ("SIGINT", "SIGTERM")])
def test_a_second_signal_ends_the_process_at_once(first: str, second: str):
    script = TWICE.format(first=first, second=second)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "still here\n"
    assert done.returncode == -getattr(signal, second)
