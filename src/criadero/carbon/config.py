"""What the energy meter has to assume, in one config model.

The defaults of PUE, grid factor and GPU power are the paper's (LLaMA 6 and Table 15); the CPU and memory
figures are those codecarbon falls back to. Every figure that was used appears in the note of its component.
"""

from __future__ import annotations

from pydantic import Field

from criadero.config import Config

# codecarbon's fallbacks: 4 W for each hardware thread, 3 W for every 8 GB of memory.
DEFAULT_WATTS_PER_CPU = 4.0
DEFAULT_MEMORY_WATTS_PER_GB = 3 / 8


class CarbonConfig(Config):
    """Assumptions behind the energy and carbon figures of a run."""

    grid_kgco2e_per_kwh: float = Field(default=0.385, ge=0, le=10)
    """Carbon of the electricity; the paper takes the US average."""
    pue: float = Field(default=1.1, ge=1, le=10)
    """Power usage effectiveness: energy of the data centre / energy of the computers in it."""
    gpu_tdp_watts: float = Field(default=400.0, gt=0, le=10_000)
    """Power of one GPU where it cannot be read; the paper's A100-80GB."""
    cpu_tdp_watts: float | None = Field(default=None, gt=0, le=10_000)
    """Power of all CPUs at full load where it cannot be read; unset: 4 W for each hardware thread."""
    memory_watts_per_gb: float = Field(default=DEFAULT_MEMORY_WATTS_PER_GB, ge=0, le=100)
    """Power of the installed memory where it cannot be read."""
