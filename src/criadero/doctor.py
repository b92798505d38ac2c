"""What this machine offers for training, as plain values: `examine`."""

from __future__ import annotations

import os
import shutil
from importlib import util
from pathlib import Path
from typing import Any

import torch

from criadero.parallel.compile import find_compiler
from criadero.runs import describe_environment


def examine() -> dict[str, Any]:
    """Return versions, devices, memory, disk and optional parts; None where something is missing."""
    environment = describe_environment()
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "python": environment["python"],
        "platform": environment["platform"],
        **{f"version {name}": version for name, version in environment["versions"].items()},
        "git_commit": environment["git_commit"],
        "cpu_cores": len(os.sched_getaffinity(0)),
        "cpu_bfloat16": _cpu_bfloat16(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "free_disk_bytes": shutil.disk_usage(Path.cwd()).free,
        "cuda_devices": devices,
        "compiler": find_compiler(),
        "energy_counters": _energy_counters(),
        "tensorboard": util.find_spec("tensorboardX") is not None,
    }


def _cpu_bfloat16() -> str | None:
    """Which instructions multiply bfloat16 matrices on this CPU."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    return next((name for name in ("amx_bf16", "avx512_bf16") if name in flags), None)


def _energy_counters() -> list[str]:
    found = []
    if os.access("/sys/class/powercap/intel-rapl:0/energy_uj", os.R_OK):
        found.append("rapl")
    if util.find_spec("pynvml") is not None and torch.cuda.is_available():
        found.append("nvml")
    return found
