"""The paper's carbon arithmetic (LLaMA 6, Table 15), exactly, beside the rows it printed.

Entry points: `energy_wh` and `emissions_tco2e` for one run of GPU-hours; `TABLE_15` for the published rows.
It counts GPUs at their rated power times PUE and nothing else: no processors, memory, network or embodied
carbon.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

GPU_WATTS = 400.0
PUE = 1.1
GRID_TCO2E_PER_MWH = 0.385


def energy_wh(gpu_hours: float) -> float:
    """Return Wh = GPU-h x 400 W x PUE (LLaMA 6)."""
    return gpu_hours * GPU_WATTS * PUE


def emissions_tco2e(energy_mwh: float, *, grid_tco2e_per_mwh: float = GRID_TCO2E_PER_MWH) -> float:
    """Return tCO2eq = MWh x grid factor (LLaMA 6); t/MWh is the same number as kg/kWh."""
    return energy_mwh * grid_tco2e_per_mwh


@dataclass(frozen=True)
class Table15Row:
    """One row of Table 15 as printed."""

    model: str
    gpu_hours: int
    printed_mwh: int
    printed_tco2e: int

    @property
    def mwh(self) -> float:
        """Energy by the paper's formula, MWh."""
        return energy_wh(self.gpu_hours) / 1e6

    @property
    def tco2e(self) -> float:
        """Carbon by the paper's formula, tonnes."""
        return emissions_tco2e(self.mwh)


TABLE_15 = (
    Table15Row("OPT-175B", 809_472, 356, 137),
    # The printed 475 does not follow from the formula, which gives 476.47.
    Table15Row("BLOOM-175B", 1_082_880, 475, 183),
    Table15Row("LLaMA-7B", 82_432, 36, 14),
    Table15Row("LLaMA-13B", 135_168, 59, 23),
    Table15Row("LLaMA-33B", 530_432, 233, 90),
    Table15Row("LLaMA-65B", 1_022_362, 449, 173),
)

# All the work together: "2048 A100-80GB for a period of approximately 5 months" (LLaMA 6).
WHOLE_DEVELOPMENT_MWH = 2638
WHOLE_DEVELOPMENT_TCO2E = 1015


def print_mwh(mwh: float) -> int:
    """Return MWh as Table 15 prints them: the decimals cut off (449.84 is printed as 449)."""
    return math.floor(mwh)


def print_tco2e(tco2e: float) -> int:
    """Return tCO2eq as Table 15 prints them: to the nearest tonne (13.96 is printed as 14)."""
    return math.floor(tco2e + 0.5)
