"""The ledger keeps every attempt, whatever became of it."""

import json
import os
import signal
import subprocess
import sys

import pytest

from criadero.carbon.ledger import LedgerSegment, ledger_path, read_segments, total
from criadero.carbon.reading import EnergyComponent, EnergyReading
from criadero.errors import DataError, NumericsError, StoppedEarly


class SteadyMeter:
    """A meter that shows 100 J more GPU and 10 J more overhead each time, one second apart."""

    def __init__(self, provenance: str = "measured") -> None:
        self.count, self.provenance = 0, provenance

    def read(self) -> EnergyReading:
        self.count += 1
        gpu = EnergyComponent("gpu", 100.0 * self.count, self.provenance, "test")
        overhead = EnergyComponent("overhead", 10.0 * self.count, "assumed", "PUE 1.1")
        return EnergyReading((gpu, overhead), float(self.count))


def attempt(folder, *, error=None, rank=0, meter=None, activity="train"):
    with LedgerSegment(folder, meter or SteadyMeter(), rank=rank, activity=activity) as segment:
        segment.update(steps=3, tokens=3000)
        if error is not None:
            raise error


def test_a_segment_keeps_steps_tokens_joules_and_outcome(tmp_path):
    attempt(tmp_path)
    (segment,) = read_segments(tmp_path)
    assert (segment.outcome, segment.steps, segment.tokens, segment.seconds) == ("finished", 3, 3000, 2.0)
    assert segment.joules == pytest.approx(220)
    assert segment.activity == "train"
    assert segment.started <= segment.last_seen


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (StoppedEarly("saved"), "stopped"),
        (KeyboardInterrupt(), "stopped"),
        (NumericsError("loss is NaN"), "failed"),
        (MemoryError(), "failed"),
    ],
)
def test_the_way_an_attempt_ends_is_its_outcome(tmp_path, error, outcome):
    with pytest.raises(type(error)):
        attempt(tmp_path, error=error)
    assert [segment.outcome for segment in read_segments(tmp_path)] == [outcome]


def test_failed_and_resumed_attempts_all_count(tmp_path):
    with pytest.raises(NumericsError):
        attempt(tmp_path, error=NumericsError("loss is NaN"))
    attempt(tmp_path)
    attempt(tmp_path, activity="evaluate")
    totals = total(read_segments(tmp_path))
    assert totals.joules == pytest.approx(3 * 220)
    assert totals.joules_by_outcome == {"failed": pytest.approx(220), "finished": pytest.approx(440)}
    assert (totals.steps, totals.tokens, totals.seconds) == (9, 9000, 6.0)
    assert totals.kwh == pytest.approx(660 / 3.6e6)
    assert totals.kgco2e(0.385) == pytest.approx(660 / 3.6e6 * 0.385)


def test_ranks_add_their_energy_but_not_the_jobs_steps(tmp_path):
    for rank in range(3):
        attempt(tmp_path, rank=rank)
    totals = total(read_segments(tmp_path))
    assert totals.joules == pytest.approx(660)
    assert (totals.steps, totals.tokens, totals.seconds) == (3, 3000, 2.0)


def test_measured_and_estimated_energy_of_a_component_stay_apart(tmp_path):
    attempt(tmp_path)
    attempt(tmp_path, meter=SteadyMeter("modelled"))
    totals = total(read_segments(tmp_path))
    joules = {(part.name, part.provenance): part.joules for part in totals.components}
    assert joules == {("gpu", "measured"): 200.0, ("gpu", "modelled"): 200.0, ("overhead", "assumed"): 40.0}
    assert totals.measured_fraction == pytest.approx(200 / 440)


def test_a_process_killed_with_signal_9_is_counted_with_its_last_reading(tmp_path):
    program = """
import sys
from pathlib import Path
from criadero.carbon.ledger import LedgerSegment
from criadero.carbon.reading import EnergyComponent, EnergyReading
class M:
    def read(self): return EnergyReading((EnergyComponent("cpu", 7.0, "modelled", "test"),), 1.0)
with LedgerSegment(Path(sys.argv[1]), M()) as segment:
    segment.update(steps=1, tokens=10)
    print("ready", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert [segment.outcome for segment in read_segments(tmp_path, running=True)] == ["running"]
    attempt(tmp_path)
    segments = read_segments(tmp_path, running=True)
    assert [segment.outcome for segment in segments] == ["killed", "finished"]
    assert segments[0].joules == 7.0
    assert total(segments).tokens == 3010


def test_a_torn_last_line_loses_only_itself(tmp_path, caplog):
    attempt(tmp_path)
    path = ledger_path(tmp_path)
    whole = path.read_bytes()
    for cut in range(1, len(whole) - whole.rindex(b"\n", 0, -1) - 1):
        path.write_bytes(whole[:-cut])
        (segment,) = read_segments(tmp_path)
        ended = cut == 1  # only the line end is missing
        assert segment.outcome == ("finished" if ended else "killed")
        assert segment.joules == pytest.approx(220 if ended else 110)
    assert "unreadable line" in caplog.text


def test_an_attempt_after_a_torn_line_is_read_whole(tmp_path):
    attempt(tmp_path)
    path = ledger_path(tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    attempt(tmp_path)
    assert [segment.outcome for segment in read_segments(tmp_path)] == ["killed", "finished"]


def test_lost_lines_do_not_hide_the_rest_of_their_segment(tmp_path):
    attempt(tmp_path)
    path = ledger_path(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"\x00\x00{garbage\n" + b"".join(lines[1:]))
    (segment,) = read_segments(tmp_path)
    assert (segment.outcome, segment.joules) == ("finished", pytest.approx(220))


def test_a_folder_without_a_ledger_has_no_segments(tmp_path):
    assert read_segments(tmp_path) == []
    assert total([]).joules == 0


def test_a_ledger_of_a_newer_format_is_refused(tmp_path):
    attempt(tmp_path)
    path = ledger_path(tmp_path)
    line = json.loads(path.read_text().splitlines()[0])
    path.write_text(json.dumps({**line, "format_version": 2}) + "\n")
    with pytest.raises(DataError, match="format 2"):
        read_segments(tmp_path)


def test_a_ledger_that_cannot_be_written_warns_and_lets_the_work_go_on(tmp_path, caplog):
    ledger_path(tmp_path).mkdir()
    attempt(tmp_path)  # a folder lies where its file should be
    assert "cannot be written" in caplog.text


def test_lines_are_appended_and_never_rewritten(tmp_path):
    attempt(tmp_path)
    before = ledger_path(tmp_path).read_bytes()
    inode = os.stat(ledger_path(tmp_path)).st_ino
    attempt(tmp_path)
    assert ledger_path(tmp_path).read_bytes().startswith(before)
    assert os.stat(ledger_path(tmp_path)).st_ino == inode
