"""Memory this machine can still give. Entry points: `free_memory_bytes`, `free_gpu_bytes`, `machine`.

On the CPU it is the smaller of what the system has and what the control group of this process (a container, a
Slurm job) is still allowed. Pages that only cache files count as free: the kernel drops them when asked.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

_PROC, _CGROUP = Path("/proc"), Path("/sys/fs/cgroup")


def free_memory_bytes(*, proc: Path = _PROC, cgroup: Path = _CGROUP) -> int:
    """Return the bytes that processes on this machine can still take together."""
    limits = [_group_bytes(folder) for folder in _groups(proc, cgroup)]
    return max(0, min([_system_bytes(proc), *(limit for limit in limits if limit is not None)]))


def _system_bytes(proc: Path) -> int:
    available = _fields(proc / "meminfo").get("MemAvailable:")
    if available is not None:
        return available * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _groups(proc: Path, root: Path) -> list[Path]:
    """The folder of this process's group and of all above it: each of them may have a limit."""
    folders = [root, root / "memory"]
    for line in _read(proc / "self" / "cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "memory" if controllers else root
        names = [name for name in path.split("/") if name not in ("", "..")]
        folders += [top.joinpath(*names[:depth]) for depth in range(1, len(names) + 1)]
    return folders


def _group_bytes(folder: Path) -> int | None:
    """What a group may still take by version 2 or 1 of control groups; None without a limit."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        limit_bytes, used_bytes = _number(folder / limit), _number(folder / used)
        if limit_bytes is not None and used_bytes is not None:
            cached = _fields(folder / "memory.stat")
            return limit_bytes - used_bytes + cached.get("inactive_file", 0) + cached.get("active_file", 0)
    return None


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdecimal() else None


def _fields(path: Path) -> dict[str, int]:
    rows = [line.split() for line in _read(path).splitlines()]
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def free_gpu_bytes(index: int | None) -> int:
    """Return the free memory of a CUDA device, the current one if `index` is None."""
    import torch

    return torch.cuda.mem_get_info(index)[0]


def machine() -> str:
    """Return a name that ranks have in common if they share memory: the host's, and of which start."""
    return f"{platform.node()} {_read(_PROC / 'sys' / 'kernel' / 'random' / 'boot_id').strip()}"
