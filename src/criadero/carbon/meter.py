"""The energy meter: joules of this machine since a moment, by component, each with its provenance.

Entry point: `EnergyMeter(config).start()`, then `.read()` at least once a minute. For every component the
best source there is gets chosen: a hardware counter, else a model of the load, else the rated power. One rank
of each machine meters the host (`host=True`) and every rank its own GPUs, so that sums over ranks count
everything once.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from criadero.carbon import counters, estimates
from criadero.carbon.config import DEFAULT_WATTS_PER_CPU, CarbonConfig
from criadero.carbon.reading import EnergyComponent, EnergyReading

logger = logging.getLogger("criadero")

# Memory to assume where the machine does not tell: better a stated guess than zero.
UNKNOWN_MEMORY_GB = 16.0


class EnergySource(Protocol):
    """Something that knows the energy of one component since a moment."""

    def start(self) -> None:
        """Begin at zero joules."""

    def read(self, seconds: float) -> EnergyComponent:
        """Return the joules since `start`, which was `seconds` ago on the meter's clock."""


@dataclass(frozen=True)
class Machine:
    """What the meter reads from; tests put other folders, another NVML and another CPU count here."""

    powercap: Path = counters.POWERCAP
    proc: Path = estimates.PROC
    nvml: Any = None
    num_cpus: int = 1


def this_machine() -> Machine:
    """Return the machine this process runs on, with NVML when its Python package is installed."""
    try:
        import pynvml as nvml
    except ImportError:
        nvml = None
    return Machine(nvml=nvml, num_cpus=os.cpu_count() or 1)


@dataclass
class EnergyMeter:
    """Sums the energy of this machine from `start` on.

    Args:
        config: ratings and factors to assume where nothing can be read.
        gpus: NVML indices or UUIDs of the GPUs to count; None for all.
        host: also count processors and memory.
        machine: where to read; default this one.
        clock: monotonic seconds.
    """

    config: CarbonConfig
    gpus: Sequence[int | str] | None = None
    host: bool = True
    machine: Machine = field(default_factory=this_machine)
    clock: Callable[[], float] = time.monotonic
    _sources: list[EnergySource] = field(init=False)
    _start_seconds: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._sources = choose_sources(self.config, self.machine, gpus=self.gpus, host=self.host)

    def start(self) -> EnergyMeter:
        """Begin at zero joules; returns itself."""
        self._start_seconds = self.clock()
        for source in self._sources:
            source.start()
        return self

    def read(self) -> EnergyReading:
        """Return the energy since `start`, the assumed overhead of the data centre included."""
        seconds = max(0.0, self.clock() - self._start_seconds)
        parts = [source.read(seconds) for source in self._sources]
        overhead_joules = (self.config.pue - 1) * sum(part.joules for part in parts)
        overhead = EnergyComponent("overhead", overhead_joules, "assumed", f"PUE {self.config.pue:g}")
        return EnergyReading((*parts, overhead), seconds)


def choose_sources(
    config: CarbonConfig, machine: Machine, *, gpus: Sequence[int | str] | None = None, host: bool = True
) -> list[EnergySource]:
    """Return the best source there is for each component of `machine`."""
    chosen: list[EnergySource] = []
    gpu = _gpu_source(config, machine, gpus)
    if gpu is not None:
        chosen.append(gpu)
    if host:
        chosen += _host_sources(config, machine)
    return chosen


def _gpu_source(
    config: CarbonConfig, machine: Machine, gpus: Sequence[int | str] | None
) -> EnergySource | None:
    if gpus is not None and not gpus:
        return None
    if machine.nvml is not None:
        found = counters.nvml_source(machine.nvml, gpus=gpus, fallback_watts=config.gpu_tdp_watts)
        if found is not None:
            return found
    count = estimates.driver_gpu_count(machine.proc) if gpus is None else len(gpus)
    if count == 0:
        return None
    note = f"{count} x {config.gpu_tdp_watts:g} W all the time, NVML gives no energy"
    return estimates.RatedPower("gpu", count * config.gpu_tdp_watts, note)


def _host_sources(config: CarbonConfig, machine: Machine) -> list[EnergySource]:
    cpu_watts = config.cpu_tdp_watts or DEFAULT_WATTS_PER_CPU * machine.num_cpus
    memory_gb = estimates.installed_memory_gb(machine.proc)
    memory_watts = config.memory_watts_per_gb * (memory_gb or UNKNOWN_MEMORY_GB)
    metered = counters.rapl_sources(machine.powercap, cpu_tdp_watts=cpu_watts, memory_watts=memory_watts)
    chosen: dict[str, EnergySource] = {source.name: source for source in metered}
    if "cpu" not in chosen:
        rating = "configured" if config.cpu_tdp_watts else f"assumed, 4 W x {machine.num_cpus} CPUs"
        chosen["cpu"] = estimates.ModelledCpu(cpu_watts, rating, machine.proc)
    if "memory" not in chosen:
        size = f"{memory_gb:.0f} GB" if memory_gb else f"{UNKNOWN_MEMORY_GB:g} GB, size unknown"
        note = f"{config.memory_watts_per_gb:g} W/GB x {size} all the time"
        chosen["memory"] = estimates.RatedPower("memory", memory_watts, note)
    return list(chosen.values())
