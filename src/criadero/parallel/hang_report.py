"""What each rank was doing when a run stood still, and which of them held it up.

Entry points: `describe_self`, asked of every rank by `watchdog`, then `judge` and `as_text` where the
answers come together. Collectives are read from torch's flight recorder, which gloo and NCCL both keep.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

from torch._C import _distributed_c10d

_NONE = "none"
# What is read of an entry of the flight recorder.
_READ = {
    "collective_seq_id", "input_sizes", "process_group", "profiling_name", "retired", "time_created_ns",
}  # fmt: skip


@dataclass(frozen=True)
class RankReport:
    """What one rank says of itself.

    Attributes:
        place: host and process id.
        phase: part of the work that the main thread is in.
        phase_seconds: for how long.
        begun: the last collective it began.
        finished: the last one it finished.
        waiting: it has begun one that is not finished, or has given one up.
        positions: number of the last collective begun, by process group.
        stacks: of each Python thread by name; the main thread first.
    """

    rank: int
    place: str
    phase: str
    phase_seconds: float
    begun: str
    finished: str
    waiting: bool
    positions: dict[str, int]
    stacks: dict[str, str]

    def to_json(self) -> str:
        """Return the form that travels."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> RankReport:
        """Read the form `to_json` makes."""
        return cls(**json.loads(text))


def describe_self(rank: int, *, phase: str, phase_seconds: float, gave_up: str | None) -> RankReport:
    """Return what this process is doing; to be called by a thread of its own.

    Args:
        gave_up: the trace of the collective that the main thread has given up, None if it has not.
    """
    entries = _of_main_thread(_flight_record())
    unfinished = [entry for entry in entries if not entry["retired"]]
    done = [entry for entry in entries if entry["retired"]]
    stacks = _stacks()
    if gave_up is not None:
        done = [entry for entry in done if entry is not entries[-1]]  # retired without an end
        stacks = {**stacks, next(iter(stacks)): gave_up}
    return RankReport(
        rank=rank,
        place=f"{socket.gethostname()}, process {os.getpid()}",
        phase=phase,
        phase_seconds=round(phase_seconds, 1),
        begun=_name(entries[-1]) if entries else _NONE,
        finished=_name(done[-1]) if done else _NONE,
        waiting=bool(unfinished) or gave_up is not None or waits_in_collective(next(iter(stacks.values()))),
        positions={_group(entry): int(entry["collective_seq_id"]) for entry in entries},
        stacks=stacks,
    )


def waits_in_collective(stack: str) -> bool:
    """Whether a stack ends inside torch.distributed: all there is to go by where no record is kept."""
    frames = [line for line in stack.splitlines() if line.lstrip().startswith("File ")]
    return bool(frames) and "/torch/distributed/" in frames[-1]


def judge(reports: Sequence[RankReport], *, silent: Sequence[int]) -> str:
    """Say which ranks held the run up.

    A rank without an answer is dead, or stands still with all its threads. Of those that answer, the one to
    look at waits for nobody, and has begun fewer collectives of some group than others have.
    """
    if silent:
        return "; ".join(f"rank {rank} died or hangs" for rank in silent)
    idle, behind = [report for report in reports if not report.waiting], _behind(reports)
    culprits = [report for report in idle if report in behind] or idle or behind
    if not culprits:
        return "all ranks wait in the same collective: the network failed"
    return "; ".join(_accuse(report) for report in culprits[:4])


def _behind(reports: Sequence[RankReport]) -> list[RankReport]:
    furthest: dict[str, int] = {}
    for report in reports:
        for group, number in report.positions.items():
            furthest[group] = max(number, furthest.get(group, 0))
    return [
        report
        for report in reports
        if any(number < furthest[group] for group, number in report.positions.items())
    ]


def _accuse(report: RankReport) -> str:
    where = next(iter(report.stacks.values())).rstrip().splitlines()
    last = " ".join(line.strip() for line in where[-2:])
    return (
        f"rank {report.rank} ({report.place}) hangs in {report.phase} for {report.phase_seconds:.0f} s: "
        f"{last}; last collective begun: {report.begun}, finished: {report.finished}"
    )


def as_text(verdict: str, reports: Sequence[RankReport], *, all_threads: bool) -> str:
    """Return the report for people; ranks that do the same thing are shown together."""
    ranks_by_text: dict[str, list[RankReport]] = {}
    for report in reports:
        ranks_by_text.setdefault(_describe(report, all_threads=all_threads), []).append(report)
    parts = [
        "\n".join([f"=== rank {one.rank} ({one.place})" for one in same]) + "\n" + text
        for text, same in ranks_by_text.items()
    ]
    return f"{verdict}\n\n" + "\n".join(parts)


def _describe(report: RankReport, *, all_threads: bool) -> str:
    stacks = list(report.stacks.items()) if all_threads else list(report.stacks.items())[:1]
    lines = [
        f"phase: {report.phase}",
        f"last collective begun: {report.begun}",
        f"last collective finished: {report.finished}",
        *(f"{name}:\n{stack}" for name, stack in stacks),
    ]
    return "\n".join(lines)


def _flight_record() -> list[dict[str, Any]]:
    """Return the collectives this process began lately, oldest first.

    Empty where torch keeps no record, or one of another form than is known here: the stacks are said anyway.
    """
    entries: list[dict[str, Any]] = []
    for name in ("_dump_fr_trace_json", "_dump_nccl_trace_json"):
        dump = getattr(_distributed_c10d, name, None)
        if dump is not None:
            entries += [e for e in json.loads(dump()).get("entries", []) if e.keys() >= _READ]
    return sorted(entries, key=lambda entry: int(entry["time_created_ns"]))


def _of_main_thread(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what other Python threads began: a checkpoint being written says nothing about the training.

    Not only what the main thread began: the backward pass on CUDA has threads of its own.
    """
    others = {str(each.ident) for each in threading.enumerate() if each is not threading.main_thread()}
    return [entry for entry in entries if str(entry.get("thread_id")) not in others]


def _name(entry: dict[str, Any]) -> str:
    operation = str(entry["profiling_name"]).split(":")[-1]
    return f"{operation} number {entry['collective_seq_id']} of group {_group(entry)}, {entry['input_sizes']}"


def _group(entry: dict[str, Any]) -> str:
    name, purpose = entry["process_group"]
    return name if purpose in ("", "undefined") else f"{name} ({purpose})"


def _stacks() -> dict[str, str]:
    """Return the Python stack of every thread but the one that asks, the main thread's first."""
    frames = sys._current_frames()
    main, asking = threading.main_thread(), threading.get_ident()
    threads = sorted(threading.enumerate(), key=lambda each: each is not main)
    return {
        each.name: _stack(frames[each.ident])
        for each in threads
        if each.ident in frames and (each is main or each.ident != asking)
    }


def _stack(frame: FrameType) -> str:
    return "".join(traceback.format_stack(frame))
