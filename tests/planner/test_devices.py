"""Devices by name: their data sheets, and nobody else's numbers for a device that is not known."""

from __future__ import annotations

import pytest

from criadero.errors import UsageError
from criadero.planner.devices import device_of, find_device, peak_flops_per_second


@pytest.mark.parametrize(
    ("name", "peak_teraflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("A100-PCIE-40GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989),
        ("NVIDIA H200 NVL", 835),
    ],
)
def test_known_devices_have_their_data_sheets_peak(name: str, peak_teraflops: int):
    assert peak_flops_per_second(name) == peak_teraflops * 1e12


@pytest.mark.parametrize(
    "name",
    [
        "cpu",
        "",
        "NVIDIA RTX A1000 Laptop GPU",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "GRID A100D-10C",
        "NVIDIA GH200 480GB",
        "NVIDIA H20",
        "NVIDIA GeForce RTX 4090",
        "AMD Instinct MI300X",
    ],
)
def test_an_unknown_device_has_no_peak_and_never_somebody_elses(name: str):
    assert peak_flops_per_second(name) is None


@pytest.mark.parametrize(
    ("said", "name", "gigabytes"),
    [
        ("A100", "A100", 80),
        ("a100 40gb", "A100 40GB", 40),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB", 40),
        ("NVIDIA A100-PCIE-40GB", "A100 40GB", 40),
        ("NVIDIA A100 80GB PCIe", "A100", 80),
        ("h100", "H100", 80),
        ("NVIDIA H100 NVL", "H100 NVL", 94),
        ("NVIDIA H200", "H200", 141),
    ],
)
def test_people_and_drivers_name_the_same_devices(said: str, name: str, gigabytes: int):
    found = device_of(said)
    assert (found.name, found.memory_bytes) == (name, gigabytes * 10**9)


def test_a_name_nobody_knows_is_refused_with_the_closest_one():
    with pytest.raises(UsageError, match=r"unknown device `H100x`, did you mean `H100`") as problem:
        device_of("H100x")
    assert "A100 40GB" in (problem.value.hint or "")


def test_part_of_a_device_is_not_the_device():
    assert find_device("NVIDIA A100-SXM4-80GB MIG 3g.40gb") is None
