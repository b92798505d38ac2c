"""The processes below this one, from /proc: who they are and where they listen."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_LISTENING = "0A"


def descendants() -> list[int]:
    """Return the ids of all living processes below this one, parents first."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            state, parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            if entry.name.isdigit() and state != "Z":
                parents[int(entry.name)] = int(parent)
    found = [os.getpid()]
    for process in found:
        found.extend(child for child, parent in parents.items() if parent == process)
    return found[1:]


def title(process: int) -> str:
    """Return the command line, empty if the process is gone."""
    with suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ").strip()
    return ""


def listening(processes: list[int]) -> set[str]:
    """Return the addresses on which these processes accept TCP connections."""
    mine = {inode for process in processes for inode in _sockets(process)}
    return {str(address) for address, inode in _listeners() if inode in mine}


def _sockets(process: int) -> Iterator[str]:
    with suppress(OSError):
        for descriptor in Path(f"/proc/{process}/fd").iterdir():
            with suppress(OSError):
                target = os.readlink(descriptor)
                if target.startswith("socket:["):
                    yield target[8:-1]


def _listeners() -> Iterator[tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, str]]:
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENING:
                yield _address(fields[1].split(":")[0]), fields[9]


def _address(digits: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The kernel prints words of 32 bits in its own byte order."""
    words = [int(digits[i : i + 8], 16).to_bytes(4, "little") for i in range(0, len(digits), 8)]
    address = ipaddress.ip_address(b"".join(words))
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address
