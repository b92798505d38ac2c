"""Sinks: what TensorBoard will read is what was written, and a sink that fails hurts nobody."""

from __future__ import annotations

import logging
import struct
import sys
from pathlib import Path

import pytest

from criadero import notices
from criadero.errors import ConfigError
from criadero.sinks import BestEffortSink, open_sinks


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "_said", set())


def scalars(folder: Path) -> dict[tuple[int, str], float]:
    """Read event files as TensorBoard does: length, its checksum, a protobuf event, its checksum."""
    from tensorboardX.crc32c import crc32c
    from tensorboardX.proto.event_pb2 import Event

    def masked(data: bytes) -> int:
        checksum = crc32c(data)
        return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF

    found = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            body = data[12 : 12 + length]
            assert struct.unpack("<I", data[8:12])[0] == masked(data[:8])
            assert struct.unpack("<I", data[12 + length : 16 + length])[0] == masked(body)
            event = Event.FromString(body)
            found |= {(event.step, value.tag): value.simple_value for value in event.summary.value}
            data = data[16 + length :]
    return found


def test_tensorboard_reads_what_was_written(tmp_path: Path):
    (sink,) = open_sinks(["tensorboard"], tmp_path)
    sink.write(1, {"loss": 2.5, "skipped": False, "tokens": 128})
    sink.write(2, {"loss": 2.25, "skipped": True, "heldout_bits_per_byte/a": 1.5})
    sink.close()
    assert scalars(tmp_path / "tensorboard") == {
        (1, "loss"): 2.5,
        (1, "skipped"): 0.0,
        (1, "tokens"): 128.0,
        (2, "loss"): 2.25,
        (2, "skipped"): 1.0,
        (2, "heldout_bits_per_byte/a"): 1.5,
    }


class Broken:
    """Fails at its second write, and at every close."""

    def __init__(self) -> None:
        self.written: list[int] = []

    def write(self, step: int, values) -> None:
        self.written.append(step)
        if len(self.written) == 2:
            raise OSError("the server has gone away")

    def close(self) -> None:
        raise OSError("still gone")


def test_a_sink_that_fails_is_left_alone_and_that_is_said_once(caplog: pytest.LogCaptureFixture):
    broken = Broken()
    sink = BestEffortSink("far-away", broken)
    with caplog.at_level(logging.WARNING, "criadero"):
        for step in range(1, 6):
            sink.write(step, {"loss": 1.0})
        sink.close()
    assert broken.written == [1, 2]
    assert [record.message for record in caplog.records] == [
        "metrics sink `far-away` failed and is left out from now on: the server has gone away"
    ]


def test_a_sink_that_fails_at_its_end_is_said_and_passed_over(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING, "criadero"):
        BestEffortSink("far-away", Broken()).close()
    assert "failed at close: still gone" in caplog.text


def test_an_unknown_sink_is_named_with_the_known_ones_before_any_is_opened(tmp_path: Path):
    with pytest.raises(ConfigError, match="unknown metrics sink `tensorbord`, known: tensorboard"):
        open_sinks(["tensorboard", "tensorbord"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_sink_whose_package_is_missing_says_how_to_get_it(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ConfigError, match="needs tensorboardX") as problem:
        open_sinks(["tensorboard"], tmp_path)
    assert "criadero[tensorboard]" in problem.value.hint


def test_no_names_open_no_sinks(tmp_path: Path):
    assert open_sinks([], tmp_path) == []
