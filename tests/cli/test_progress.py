"""Progress: a live line on a terminal, a line every log_seconds elsewhere, nothing on stdout."""

from __future__ import annotations

import io
import logging
import sys

import pytest
from torch import nn

from criadero.cli import progress
from criadero.cli.output import live_line, set_up_logging
from criadero.cli.progress import ProgressDisplay, describe_step, format_seconds
from criadero.train.config import RunConfig
from criadero.train.state import TrainState

METRICS = {
    "loss": 3.14159,
    "learning_rate": 0.000123,
    "gradient_norm": 0.987,
    "tokens_per_second": 12345.6,
    "mfu_palm": 0.4321,
    "eta_seconds": 3700.0,
}


class Terminal(io.StringIO):
    """A text stream that is, or is not, a terminal."""

    def __init__(self, *, tty: bool) -> None:
        super().__init__()
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch):
    logger = logging.getLogger("criadero")
    before = logger.handlers, logger.level, logger.propagate
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    yield clock
    logger.handlers, logger.level, logger.propagate = before


def show(clock: Clock, monkeypatch, *, tty: bool, shown: bool = True, quiet: bool = False) -> str:
    """Twenty steps of half a second with log_seconds = 3."""
    stream = Terminal(tty=tty)
    monkeypatch.setattr(sys, "stderr", stream)
    set_up_logging(quiet=quiet)
    config = RunConfig.model_validate(
        {
            "run": {"folder": "x", "log_seconds": 3},
            "model": {"preset": "debug"},
            "data": {"sources": [{"name": "a", "path": "a"}], "seq_len": 64},
            "train": {"tokens": 64 * 20, "batch_tokens": 64},
        }
    )
    with ProgressDisplay(config, shown=shown) as display:
        for step in range(1, 21):
            display.before_step(nn.Identity(), TrainState(step=step - 1))
            display.after_step(TrainState(step=step), METRICS, total_steps=20)
            clock.now += 0.5
    return stream.getvalue()


def test_a_line_says_all_that_matters():
    line = describe_step(TrainState(step=1500), METRICS, total_steps=6000)
    assert line == (
        "step 1,500/6,000 (25%)  loss 3.1416  lr 1.23e-04  norm 0.99  12,346 tokens/s  MFU 43.2%  "
        "1 h 01 min left"
    )
    assert "MFU" not in describe_step(TrainState(step=1), METRICS | {"mfu_palm": None}, total_steps=6)


def test_elsewhere_there_is_one_plain_line_every_log_seconds_and_the_last(clock, monkeypatch):
    lines = show(clock, monkeypatch, tty=False).splitlines()
    assert [line.split()[1] for line in lines] == ["1/20", "7/20", "13/20", "19/20", "20/20"]
    assert not any("\x1b" in line or "\r" in line for line in lines)


def test_on_a_terminal_the_line_is_written_in_place_and_ended(clock, monkeypatch):
    text = show(clock, monkeypatch, tty=True)
    assert text.count("\n") == 1
    assert text.endswith("left\n")
    assert [part.split()[1] for part in text.split("\r\x1b[K")[1:]] == [f"{n}/20" for n in range(1, 21)]


def test_a_log_line_begins_below_the_live_line(clock, monkeypatch):
    stream = Terminal(tty=True)
    monkeypatch.setattr(sys, "stderr", stream)
    set_up_logging()
    live_line.show("step 1")
    logging.getLogger("criadero").info("saved")
    live_line.show("step 2")
    live_line.end()
    live_line.end()
    assert stream.getvalue() == "\r\x1b[Kstep 1\nsaved\n\r\x1b[Kstep 2\n"


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (
            105,
            "step 1,500/6,000 (25%)  loss 3.1416  lr 1.23e-04  norm 0.99  12,346 tokens/s  MFU 43.2%  "
            "1 h 01 min left",
        ),
        (81, "step 1,500/6,000 (25%)  loss 3.1416  12,346 tokens/s  MFU 43.2%  1 h 01 min left"),
        (20, "step 1,500/6,000 (2"),
    ],
)
def test_a_line_is_shorter_than_the_terminal_is_wide(columns: int, line: str):
    found = describe_step(TrainState(step=1500), METRICS, total_steps=6000, columns=columns)
    assert len(found) < columns
    assert found == line


def test_other_ranks_show_nothing(clock, monkeypatch):
    assert show(clock, monkeypatch, tty=False, shown=False) == ""
    assert show(clock, monkeypatch, tty=True, shown=False) == ""


def test_quiet_leaves_the_lines_out(clock, monkeypatch):
    assert show(clock, monkeypatch, tty=False, quiet=True) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (250, "4 min 10 s"),
        (7500, "2 h 05 min"),
        (86_399, "23 h 59 min"),
        (273_600, "3 d 04 h"),
    ],
)
def test_durations_for_people(seconds: float, text: str):
    assert format_seconds(seconds) == text
