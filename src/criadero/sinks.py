"""Where metrics go besides metrics.jsonl: optional sinks that may fail without hurting the run.

A sink is anything with `write(step, values)` and `close()`. `open_sinks` makes the ones a config names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from criadero.errors import ConfigError
from criadero.notices import say_once


class Sink(Protocol):
    """A place that receives the numbers of each logged step."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Receive one step's numbers."""

    def close(self) -> None:
        """Flush and close."""


class TensorBoardSink:
    """Writes event files that TensorBoard shows.

    Raises:
        ConfigError: tensorboardX is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise ConfigError(
                "the `tensorboard` sink needs tensorboardX", hint="pip install 'criadero[tensorboard]'"
            ) from None
        self._writer = SummaryWriter(str(folder))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add one scalar a value."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class BestEffortSink:
    """Wraps a sink: after its first error it is left alone, and that is said once."""

    def __init__(self, name: str, sink: Sink) -> None:
        self._name = name
        self._sink: Sink | None = sink

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Pass the numbers on, unless the sink has failed before."""
        if self._sink is None:
            return
        try:
            self._sink.write(step, values)
        except Exception as problem:  # any fault of a sink must not end the run
            self._sink = None
            say_once(f"metrics sink `{self._name}` failed and is left out from now on: {problem}")

    def close(self) -> None:
        """Close the sink, ignoring its faults."""
        if self._sink is not None:
            try:
                self._sink.close()
            except Exception as problem:
                say_once(f"metrics sink `{self._name}` failed at close: {problem}")


_SINKS = {"tensorboard": TensorBoardSink}


def open_sinks(names: Iterable[str], folder: Path) -> list[Sink]:
    """Open the named sinks, each in `folder/NAME`.

    Raises:
        ConfigError: an unknown name, or a sink whose package is missing.
    """
    names = list(names)
    for name in names:
        if name not in _SINKS:
            raise ConfigError(f"unknown metrics sink `{name}`, known: {', '.join(sorted(_SINKS))}")
    return [BestEffortSink(name, _SINKS[name](folder / name)) for name in names]
