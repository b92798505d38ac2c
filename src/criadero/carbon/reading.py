"""Joules with their provenance: the plain values that flow from the meter to the ledger and the reports.

A component is `measured` (a hardware counter), `modelled` (a rating times an observed load) or `assumed`
(a rating times the clock, or a factor). A sum says how much of it was measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Provenance = Literal["measured", "modelled", "assumed"]
JOULES_PER_KWH = 3_600_000.0


@dataclass(frozen=True)
class EnergyComponent:
    """Energy of one part of the machine since the start of the meter."""

    name: str
    """`gpu`, `cpu`, `memory` or `overhead`."""
    joules: float
    provenance: Provenance
    note: str
    """Where the figure comes from: the counter, or the rating that was assumed."""


@dataclass(frozen=True)
class EnergyReading:
    """All components since the start of the meter, and the seconds they cover."""

    components: tuple[EnergyComponent, ...]
    seconds: float

    @property
    def joules_total(self) -> float:
        """Energy of all components, data-centre overhead included."""
        return sum(component.joules for component in self.components)

    @property
    def kwh(self) -> float:
        """The same in kWh."""
        return self.joules_total / JOULES_PER_KWH

    @property
    def measured_fraction(self) -> float:
        """Part of the total that hardware counters gave, 0 to 1."""
        return measured_fraction(self.components)


def measured_fraction(components: Iterable[EnergyComponent]) -> float:
    """Return the measured part of the energy of `components`, 0 to 1 (0 when there is none)."""
    components = tuple(components)
    total_joules = sum(component.joules for component in components)
    measured_joules = sum(c.joules for c in components if c.provenance == "measured")
    return measured_joules / total_joules if total_joules else 0.0


def kgco2e(joules: float, grid_kgco2e_per_kwh: float) -> float:
    """Return the carbon of `joules` of electricity (LLaMA 6: tCO2eq = MWh x grid factor)."""
    return joules / JOULES_PER_KWH * grid_kgco2e_per_kwh
