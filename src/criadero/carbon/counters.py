"""Hardware energy counters: NVML for NVIDIA GPUs, RAPL for processors and memory.

`CounterSource` turns counters that wrap, reset or vanish into a growing number of joules. A part of the time
that a counter could not cover is filled with the rated power, and the component is no longer called measured.
`nvml_source` and `rapl_sources` find what the machine offers; both take what they read from as arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from criadero.carbon.reading import EnergyComponent

POWERCAP = Path("/sys/class/powercap")

# No processor package draws more, so this many watts bound how fast a RAPL counter can wrap.
MAX_PACKAGE_WATTS = 1000.0


@dataclass(frozen=True)
class EnergyCounter:
    """One counter in hardware.

    `read_joules` may raise anything: a driver that fell over must not end a training run.
    """

    read_joules: Callable[[], float]
    rated_watts: float
    """Power to assume while the counter cannot be read."""
    range_joules: float = math.inf
    """Where the counter wraps to zero."""


@dataclass
class _CounterTotal:
    """The energy one counter has shown so far, and the energy assumed where it showed nothing."""

    counter: EnergyCounter
    last_joules: float | None = None
    last_seconds: float = 0.0
    measured_joules: float = 0.0
    assumed_joules: float = 0.0

    def read(self, seconds: float) -> None:
        gap_seconds, self.last_seconds = seconds - self.last_seconds, seconds
        try:
            now_joules = self.counter.read_joules()
        except Exception:  # whatever a driver raises
            now_joules = None
        if now_joules is None or self.last_joules is None or self._may_hide_a_wrap(gap_seconds):
            self.assumed_joules += gap_seconds * self.counter.rated_watts
        else:
            self.measured_joules += self._increase(self.last_joules, now_joules)
        self.last_joules = now_joules

    def _may_hide_a_wrap(self, gap_seconds: float) -> bool:
        return gap_seconds * MAX_PACKAGE_WATTS > self.counter.range_joules

    def _increase(self, before_joules: float, now_joules: float) -> float:
        if now_joules >= before_joules:
            return now_joules - before_joules
        if math.isinf(self.counter.range_joules):
            return now_joules  # such a counter goes back only when its driver was loaded anew
        return now_joules + self.counter.range_joules - before_joules


@dataclass
class CounterSource:
    """A component of the machine whose energy the sum of some counters gives."""

    name: str
    note: str
    counters: Sequence[EnergyCounter]
    _totals: list[_CounterTotal] = field(default_factory=list, init=False)

    def start(self) -> None:
        """Begin at zero joules."""
        self._totals = [_CounterTotal(counter) for counter in self.counters]
        for total in self._totals:
            total.read(0.0)

    def read(self, seconds: float) -> EnergyComponent:
        """Return the joules since `start`, which was `seconds` ago."""
        for total in self._totals:
            total.read(seconds)
        measured_joules = sum(total.measured_joules for total in self._totals)
        assumed_joules = sum(total.assumed_joules for total in self._totals)
        if assumed_joules == 0:
            return EnergyComponent(self.name, measured_joules, "measured", self.note)
        note = f"{self.note}; {assumed_joules:.0f} J of it at the rated power, the counter gave no value"
        return EnergyComponent(self.name, measured_joules + assumed_joules, "modelled", note)


def nvml_source(
    nvml: Any, *, gpus: Sequence[int | str] | None = None, fallback_watts: float
) -> CounterSource | None:
    """Return the GPUs that NVML shows, or None when it shows none.

    Args:
        nvml: the `pynvml` module or a stand-in.
        gpus: NVML indices or UUIDs to meter; None for all.
        fallback_watts: power of a GPU whose limit cannot be read.
    """
    try:
        nvml.nvmlInit()
        handles = _nvml_handles(nvml, gpus)
        names = sorted({_text(nvml.nvmlDeviceGetName(handle)) for handle in handles})
    except Exception:  # no driver, no such GPU: each NVML error is a class of its own
        return None
    if not handles:
        return None
    counters = [_nvml_counter(nvml, handle, fallback_watts) for handle in handles]
    return CounterSource("gpu", f"NVML energy counters of {len(handles)} x {', '.join(names)}", counters)


def _nvml_handles(nvml: Any, gpus: Sequence[int | str] | None) -> list[Any]:
    chosen = range(nvml.nvmlDeviceGetCount()) if gpus is None else gpus
    return [
        nvml.nvmlDeviceGetHandleByUUID(gpu) if isinstance(gpu, str) else nvml.nvmlDeviceGetHandleByIndex(gpu)
        for gpu in chosen
    ]


def _nvml_counter(nvml: Any, handle: Any, fallback_watts: float) -> EnergyCounter:
    try:
        rated_watts = nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000
    except Exception:  # not supported on this GPU
        rated_watts = fallback_watts
    return EnergyCounter(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000, rated_watts)


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def rapl_sources(
    powercap: Path = POWERCAP, *, cpu_tdp_watts: float, memory_watts: float
) -> list[CounterSource]:
    """Return the processor packages, and their memory where it is metered, that may be read.

    The counters cover the whole machine, whoever uses it. Many systems let only root read them; then the
    list is empty. `core` and `uncore` are parts of the package; `psys` and the `mmio` twins repeat it.
    """
    packages = [zone for zone in sorted(powercap.glob("intel-rapl:*")) if _zone(zone).startswith("package")]
    memories = [zone for zone in sorted(powercap.glob("intel-rapl:*:*")) if _zone(zone) == "dram"]
    found = [
        _rapl_source("cpu", packages, cpu_tdp_watts),
        _rapl_source("memory", memories, memory_watts),
    ]
    return [source for source in found if source is not None]


def _zone(folder: Path) -> str:
    try:
        return (folder / "name").read_text().strip()
    except OSError:
        return ""


def _rapl_source(name: str, zones: list[Path], rated_watts: float) -> CounterSource | None:
    try:
        counters = [_rapl_counter(zone, rated_watts / len(zones)) for zone in zones]
        for counter in counters:
            counter.read_joules()
    except (OSError, ValueError):
        return None
    noun = "zone" if len(zones) == 1 else "zones"
    note = f"RAPL counters of {len(zones)} {noun}, the whole machine"
    return CounterSource(name, note, counters) if counters else None


def _rapl_counter(zone: Path, rated_watts: float) -> EnergyCounter:
    range_joules = int((zone / "max_energy_range_uj").read_text()) / 1e6
    return EnergyCounter(lambda: int((zone / "energy_uj").read_text()) / 1e6, rated_watts, range_joules)
