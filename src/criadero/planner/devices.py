"""Accelerators by name: peak, memory, bandwidth, links. Entry points: `find_device`, `device_of`.

Numbers are those of NVIDIA's data sheets, memory in units of 10^9 bytes as printed there, which is a little
less than the driver reports. A device that is not in the table is unknown: it is never taken for another.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from criadero.errors import UsageError


@dataclass(frozen=True)
class Device:
    """One accelerator.

    Attributes:
        name: as NVIDIA names it.
        peak_flops_per_second: of dense bfloat16 matrix products.
        memory_bytes: all of it.
        memory_bytes_per_second: its bandwidth.
        link_bytes_per_second: NVLink to its neighbours, both directions together.
    """

    name: str
    peak_flops_per_second: float
    memory_bytes: int
    memory_bytes_per_second: float
    link_bytes_per_second: float


# The more particular name first: `H100` is the SXM form, and `A100` the one with 80 GB, as in the paper.
DEVICES = (
    Device("A100 40GB", 312e12, 40_000_000_000, 1.555e12, 600e9),
    Device("A100", 312e12, 80_000_000_000, 2.039e12, 600e9),
    Device("H100 PCIe", 756e12, 80_000_000_000, 2.0e12, 600e9),
    Device("H100 NVL", 835e12, 94_000_000_000, 3.9e12, 600e9),
    Device("H100", 989e12, 80_000_000_000, 3.35e12, 900e9),
    Device("H200 NVL", 835e12, 141_000_000_000, 4.8e12, 900e9),
    Device("H200", 989e12, 141_000_000_000, 4.8e12, 900e9),
)
# What CUDA itself, its libraries and NCCL take of a GPU's memory; a usual value, not measured here.
RESERVED_BYTES = 2_000_000_000
# Part of a GPU, as MIG and virtual machines give it, has part of the peak.
_PART_OF_A_DEVICE = ("MIG", "GRID")


def find_device(name: str) -> Device | None:
    """Return the device that a driver calls `name` (`NVIDIA A100-SXM4-80GB`), None if it is not known."""
    if any(mark in name for mark in _PART_OF_A_DEVICE):
        return None
    spoken = re.sub(r"\b(A100)-\w+-40GB", r"\1 40GB", name)
    for device in DEVICES:
        if re.search(rf"\b{device.name}\b", spoken):
            return device
    return None


def device_of(name: str) -> Device:
    """Return the device that a person calls `name`, in any case.

    Raises:
        UsageError: it is not in the table.
    """
    by_name = {device.name.lower(): device for device in DEVICES}
    found = by_name.get(name.lower()) or find_device(name)
    if found is None:
        close = difflib.get_close_matches(name.lower(), by_name, n=1)
        raise UsageError(
            f"unknown device `{name}`" + (f", did you mean `{by_name[close[0]].name}`?" if close else ""),
            hint=f"known are {', '.join(device.name for device in DEVICES)}; without --device nothing is "
            "assumed about speed",
        )
    return found


def peak_flops_per_second(device_name: str) -> float | None:
    """Return the dense bfloat16 peak of a device by the driver's name, None if it is not known."""
    device = find_device(device_name)
    return None if device is None else device.peak_flops_per_second
