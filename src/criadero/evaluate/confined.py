"""Runs one program that is not trusted; `sandbox.run` starts this file as a process of its own.

It reads {"program": text, "token": text, "cpu_seconds": n, "memory_bytes": n} from stdin, takes every right
away that a computation does not need, checks that it is gone, runs the program, and writes the token if the
program came to its end. Standard library only: nothing of criadero is in this process.

After `_confine` the kernel refuses every system call but those of _ALLOWED, so there is no network, no new
process or thread, no signal to others, no file opened for writing, made, renamed or removed. Files can be
read.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import resource
import socket
import struct
import sys

# System calls of a Python program that computes, by their numbers on x86_64 and aarch64 (Linux's own tables).
_ALLOWED = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "lseek": (8, 62),
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214), "mremap": (25, 216),
    "madvise": (28, 233), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67),
    "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "getcwd": (79, 17), "readlinkat": (267, 78),
    "getdents64": (217, 61), "newfstatat": (262, 79), "statx": (332, 291), "faccessat": (269, 48),
    "faccessat2": (439, 439), "dup": (32, 23), "getpid": (39, 172), "gettid": (186, 178),
    "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177),
    "uname": (63, 160), "sysinfo": (99, 179), "getrusage": (98, 165), "times": (100, 153),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101), "gettimeofday": (96, 169), "getrandom": (318, 278), "futex": (202, 98),
    "ppoll": (271, 73), "exit": (60, 93), "exit_group": (231, 94), "restart_syscall": (219, 128),
}  # fmt: skip
_ONLY_X86 = {"open": 2, "stat": 4, "lstat": 6, "poll": 7, "access": 21, "readlink": 89, "time": 201}
_OPENAT = (257, 56)
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
# Any flag by which an open could write or make a file; O_TMPFILE without O_DIRECTORY's bit.
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | 0o20000000

_LOAD, _EQUAL, _ANY_BIT, _AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06  # of classic BPF
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16  # in the kernel's seccomp_data
_X32_BIT = 0x40000000
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _DIE_WITH_PARENT, _FILTER = 38, 22, 1, 2


def _filter() -> bytes:
    """Return the BPF program that the kernel asks about every system call."""
    column, architecture = _ARCHITECTURES[platform.machine()]

    def step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("HBBI", code, if_true, if_false, value)

    program = [
        step(_LOAD, _ARCHITECTURE_AT), step(_EQUAL, architecture, 1, 0), step(_RETURN, _KILL),
        step(_LOAD, _NUMBER_AT), step(_AT_LEAST, _X32_BIT, 0, 1), step(_RETURN, _REFUSE),
    ]  # fmt: skip
    numbers = [pair[column] for pair in _ALLOWED.values()]
    opens = {_OPENAT[column]: 2}  # the argument that holds the flags
    if column == 0:
        numbers += [number for name, number in _ONLY_X86.items() if name != "open"]
        opens[_ONLY_X86["open"]] = 1
    for number in numbers:
        program += [step(_EQUAL, number, 0, 1), step(_RETURN, _ALLOW)]
    for number, argument in opens.items():
        flags_at = _ARGUMENTS_AT + 8 * argument
        program += [
            step(_EQUAL, number, 0, 4), step(_LOAD, flags_at), step(_ANY_BIT, _WRITES, 1, 0),
            step(_RETURN, _ALLOW), step(_RETURN, _REFUSE),
        ]  # fmt: skip
    program.append(step(_RETURN, _REFUSE))
    return b"".join(program)


def _confine(*, cpu_seconds: int, memory_bytes: int) -> None:
    """Give up what a computation does not need; there is no way back."""
    for kind, limit in (
        (resource.RLIMIT_CPU, cpu_seconds), (resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_CORE, 0),
    ):  # fmt: skip
        resource.setrlimit(kind, (limit, limit))
    libc = ctypes.CDLL(None, use_errno=True)
    code = _filter()
    kept = ctypes.create_string_buffer(code, len(code))
    pointer = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(kept)))
    for call in ((_DIE_WITH_PARENT, 9, 0), (_NO_NEW_PRIVILEGES, 1, 0), (_SET_SECCOMP, _FILTER, pointer)):
        if libc.prctl(call[0], call[1], call[2], 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl {call[0]} is refused")


def _check() -> None:
    """Make sure that rights are gone, whatever the kernel said."""

    def attempts() -> None:
        socket.socket()

    for attempt in (attempts, os.fork, lambda: os.open("/dev/null", os.O_WRONLY), lambda: os.kill(1, 0)):
        try:
            attempt()
        except PermissionError:
            continue
        raise SystemError("the sandbox does not hold")


def main() -> None:
    """Run what stdin says; the exit code is 3 where the sandbox cannot be made."""
    asked = json.loads(sys.stdin.buffer.read())
    report = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    try:
        _confine(cpu_seconds=asked["cpu_seconds"], memory_bytes=asked["memory_bytes"])
        _check()
    except (OSError, SystemError, KeyError) as problem:
        os.write(report, f"no sandbox: {problem}".encode())
        os._exit(3)
    os.write(report, _outcome(asked["program"], asked["token"]).encode())
    os._exit(0)


def _outcome(program: str, token: str) -> str:
    """Run a program and return the token, or what went wrong."""
    try:
        exec(compile(program, "<solution>", "exec"), {"__name__": "__main__"})
    except MemoryError:
        return "memory"
    except BaseException as problem:  # SystemExit is no pass either
        return f"{type(problem).__name__}: {str(problem)[:300]}"
    return token


if __name__ == "__main__":
    main()
