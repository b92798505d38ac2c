"""Energy of what no counter covers: a rating times the observed load, or times the clock.

An estimate is never zero because something is unknown, and its note states the rating it took.
`ModelledCpu` follows /proc/stat; `RatedPower` only follows the clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from criadero.carbon.reading import EnergyComponent

PROC = Path("/proc")


@dataclass
class RatedPower:
    """A component taken to draw its rated power all the time."""

    name: str
    watts: float
    note: str

    def start(self) -> None:
        """Begin at zero joules."""

    def read(self, seconds: float) -> EnergyComponent:
        """Return the joules of `seconds` at the rated power."""
        return EnergyComponent(self.name, self.watts * seconds, "assumed", self.note)


@dataclass
class ModelledCpu:
    """The processors as rated power times the busy part of their time in /proc/stat.

    Where /proc/stat is missing or does not move, full load is assumed and the component says so.
    """

    tdp_watts: float
    rating: str
    """Where the rating comes from."""
    proc: Path = PROC
    _last_seconds: float = field(default=0.0, init=False)
    _last_times: tuple[float, float] | None = field(default=None, init=False)
    _joules: float = field(default=0.0, init=False)
    _assumed_seconds: float = field(default=0.0, init=False)

    def start(self) -> None:
        """Begin at zero joules."""
        self._last_seconds, self._joules, self._assumed_seconds = 0.0, 0.0, 0.0
        self._last_times = self._times()

    def read(self, seconds: float) -> EnergyComponent:
        """Return the joules since `start`, which was `seconds` ago."""
        gap_seconds, self._last_seconds = seconds - self._last_seconds, seconds
        load, times = None, self._times()
        if times is not None and self._last_times is not None:
            load = _busy_fraction(self._last_times, times)
        if load is not None:
            self._joules += gap_seconds * self.tdp_watts * load
            self._last_times = times
        else:
            self._joules += gap_seconds * self.tdp_watts
            self._assumed_seconds += gap_seconds
        return self._component()

    def _component(self) -> EnergyComponent:
        note = f"{self.tdp_watts:g} W ({self.rating}) x load of the machine in /proc/stat"
        if self._assumed_seconds > 1:  # shorter than the clock of /proc/stat says nothing about its absence
            note += f", full load assumed for {self._assumed_seconds:.0f} s of it"
            return EnergyComponent("cpu", self._joules, "assumed", note)
        return EnergyComponent("cpu", self._joules, "modelled", note)

    def _times(self) -> tuple[float, float] | None:
        """Return (busy, all) ticks of all processors since boot."""
        try:
            words = (self.proc / "stat").read_text().split("\n", 1)[0].split()
            ticks = [float(word) for word in words[1:9]]  # guest time is inside user time
        except (OSError, ValueError):
            return None
        if words[:1] != ["cpu"] or len(ticks) < 5:
            return None
        idle = ticks[3] + ticks[4]
        return sum(ticks) - idle, sum(ticks)


def _busy_fraction(before: tuple[float, float], now: tuple[float, float]) -> float | None:
    """Return the busy part of the ticks between two readings, or None when none has passed."""
    busy, total = now[0] - before[0], now[1] - before[1]
    return min(max(busy / total, 0.0), 1.0) if total > 0 else None


def installed_memory_gb(proc: Path = PROC) -> float | None:
    """Return the memory of the machine in GB (1e9 bytes), or None when /proc/meminfo does not say."""
    try:
        for line in (proc / "meminfo").read_text().splitlines():
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) * 1024 / 1e9
    except (OSError, ValueError, IndexError):
        return None
    return None


def driver_gpu_count(proc: Path = PROC) -> int:
    """Return how many GPUs the NVIDIA kernel driver lists; what to assume power for when NVML is silent."""
    folder = proc / "driver" / "nvidia" / "gpus"
    return sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0
