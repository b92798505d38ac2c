"""Where the time of recorded training steps went. Entry points: `read_trace`, then `break_down`.

A profile is a list of `Event`s: pieces of work with a name, a beginning and an end on a lane, which is a
thread or a stream. `break_down` gives every instant of the steps to one kind of work; it is a pure function
and needs no torch. On CUDA the kernels count; on CPU the operators of the thread that trains, each without
the operators it calls, and as communication what gloo's own threads do.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, NamedTuple

Intervals = list[tuple[float, float]]
Kind = Literal["operator", "mark", "kernel", "device mark"]


class Mark(StrEnum):
    """What the training loop calls its parts in a profile."""

    DATA = "criadero: wait for data"
    FORWARD = "criadero: forward"
    BACKWARD = "criadero: backward"
    CLIP = "criadero: clip"
    OPTIMIZER = "criadero: optimizer"
    RECOMPUTE = "criadero: recompute"
    PAUSE = "criadero: save and score"


class Event(NamedTuple):
    """A piece of work; seconds on any clock. A `device mark` is a mark as the device saw it."""

    name: str
    start: float
    end: float
    lane: str
    kind: Kind = "operator"


@dataclass(frozen=True)
class Operator:
    """An operator's or kernel's own time in the recorded steps, and how often it is in the profile.

    That is more often than it ran where Python decides about each operator, as for `train.recompute=paper`.
    """

    name: str
    seconds: float
    events: int


@dataclass(frozen=True)
class Breakdown:
    """What the time of the recorded steps went into.

    Attributes:
        steps: how many were recorded.
        seconds: their time, without saving checkpoints and scoring held-out text.
        shares: part of that time by kind of work; their sum is 1.
        hidden_communication: part of that time in which communication ran beside computation. It is no
            further share: these instants are among those of the computation.
        recomputed: part of that time in which the backward pass computed again what it had not kept; among
            the shares too. None where the profile does not show it.
        operators: those with the most time of their own, longest first.
    """

    steps: int
    seconds: float
    shares: dict[str, float]
    hidden_communication: float
    recomputed: float | None
    operators: list[Operator]


class _OwnTime(NamedTuple):
    """When an event itself ran, and nothing that it called; `work` is None where it computed nothing."""

    event: int
    name: str
    work: str | None
    start: float
    end: float


ATTENTION, PRODUCTS, OTHER = "attention", "matrix products", "other computation"
EXPOSED, UPDATE = "communication, exposed", "clipping and optimizer"
DATA, REST = "waiting for data", "Python and idle"
SHARES = (PRODUCTS, ATTENTION, OTHER, EXPOSED, UPDATE, DATA, REST)

_CATEGORIES: dict[str, Kind] = {
    "cpu_op": "operator",
    "user_annotation": "mark",
    "kernel": "kernel",
    "gpu_memcpy": "kernel",
    "gpu_memset": "kernel",
    "gpu_user_annotation": "device mark",
}
_STEP = "ProfilerStep#"
_PYTHON = "PythonDispatchMode"
_BACKWARD = "autograd::engine::evaluate_function"
_ATTENTION = re.compile("attention|flash|fmha|sdpa", re.IGNORECASE)
_PRODUCT = re.compile(
    r"::_?(mm|addmm|bmm|baddbmm|scaled_mm|grouped_mm|int_mm|(mkldnn_)?linear_pointwise|mkldnn_linear)(_|_out)?$"
)
_PRODUCT_KERNEL = re.compile(r"gemm|cutlass|cublas|nvjet|xmma|triton_\w*mm", re.IGNORECASE)
# The operators of a compiled graph that are no library calls have no events of their own on CPU.
_COMPUTES = re.compile(r"## Call CompiledFxGraph|(?!torch::autograd)\w+::")
_COLLECTIVE = re.compile("_?c10d(_functional)?::")
_COLLECTIVE_KERNEL = re.compile("nccl|Memcpy PtoP")


def read_trace(trace: Mapping[str, Any]) -> list[Event]:
    """Return the events of a trace in Chrome's format, as torch.profiler writes it.

    What the backward pass computes again is marked: operators there that autograd records for a backward
    pass, as it does in a forward pass only, and the kernels they launched.

    Raises:
        KeyError, TypeError: it is not of that format.
    """
    entries = [e for e in trace["traceEvents"] if e.get("ph") == "X" and e.get("cat") in _CATEGORIES]
    again = _computed_again(entries)
    launchers = {entry["args"]["External id"] for entry in again}
    events = [_event(entry, entry["name"], _CATEGORIES[entry["cat"]]) for entry in entries]
    # On no lane: the operators are there already, and nothing is inside these marks.
    events += [_event(entry, Mark.RECOMPUTE, "mark")._replace(lane="") for entry in again]
    for entry in entries:
        if entry["cat"] == "kernel" and entry["args"].get("External id") in launchers:
            events.append(_event(entry, Mark.RECOMPUTE, "device mark"))
    return events


def _event(entry: Mapping[str, Any], name: str, kind: Kind) -> Event:
    start, end = entry["ts"] / 1e6, (entry["ts"] + entry["dur"]) / 1e6
    return Event(name, start, end, f"{entry['pid']}/{entry['tid']}", kind)


def _computed_again(entries: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the operators of a backward pass that belong to a forward pass, with all that they call."""
    threads: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for entry in entries:
        if entry["cat"] == "cpu_op":
            threads[entry["pid"], entry["tid"]].append(entry)
    found = []
    for operators in threads.values():
        backward_until = again_until = float("-inf")
        for entry in sorted(operators, key=lambda entry: (entry["ts"], -entry["dur"])):
            start, end = entry["ts"], entry["ts"] + entry["dur"]
            if entry["name"].startswith(_BACKWARD):
                backward_until = max(backward_until, end)
            elif start < backward_until and _is_of_a_forward_pass(entry["args"]):
                again_until = max(again_until, end)
            if start < again_until:
                found.append(entry)
    return found


def _is_of_a_forward_pass(arguments: Mapping[str, Any]) -> bool:
    return "Sequence number" in arguments and arguments.get("Fwd thread id") == 0


def break_down(events: Sequence[Event], *, num_steps: int, num_operators: int = 10) -> Breakdown:
    """Give each instant of the recorded steps to one kind of work.

    Communication is exposed where nothing is computed. An instant that belongs to several kinds counts as
    the first of: exposed communication; update; attention; products; other computation; waiting for data.

    Args:
        events: in any order.
        num_steps: of the steps marked in the events, the first so many are whole.
        num_operators: how many of those with most time are listed.

    Raises:
        ValueError: no whole step is marked in the events.
    """
    steps = [event for event in events if event.kind == "mark" and event.name.startswith(_STEP)]
    steps = sorted(steps, key=lambda event: event.start)[:num_steps]
    if not steps:
        raise ValueError("it holds no whole step")
    window = subtract(union(_spans(steps)), _marked(events, Mark.PAUSE))
    on_device = any(event.kind == "kernel" for event in events)
    own_times = _kernels(events) if on_device else _own_times(events, lane=steps[0].lane)
    computed = {work: intersect(spans, window) for work, spans in _by_work(own_times).items()}
    computing = union(span for spans in computed.values() for span in spans)
    communicating = intersect(union(_spans(_communication(events, on_device=on_device))), window)
    update = _marked(events, Mark.CLIP, Mark.OPTIMIZER, on_device=on_device)
    recomputing = _marked(events, Mark.RECOMPUTE, on_device=on_device)
    lengths = _exclusive(
        {
            EXPOSED: subtract(communicating, computing),
            UPDATE: update,
            ATTENTION: computed.get(ATTENTION, []),
            PRODUCTS: computed.get(PRODUCTS, []),
            OTHER: computing,
            DATA: _marked(events, Mark.DATA),
            REST: window,
        },
        window,
    )
    seconds = length(window)
    again = length(intersect(intersect(recomputing, window), computing)) / seconds if recomputing else None
    return Breakdown(
        steps=len(steps),
        seconds=seconds,
        shares={kind: lengths[kind] / seconds for kind in SHARES},
        hidden_communication=length(intersect(communicating, computing)) / seconds,
        recomputed=again,
        operators=_longest(own_times, window, num_operators),
    )


def _exclusive(spans_by_kind: Mapping[str, Intervals], window: Intervals) -> dict[str, float]:
    """Give each kind, in this order, what is left of the window."""
    lengths, left = {}, window
    for kind, spans in spans_by_kind.items():
        lengths[kind] = length(intersect(spans, left))
        left = subtract(left, spans)
    return lengths


def _longest(own_times: Iterable[_OwnTime], window: Intervals, count: int) -> list[Operator]:
    seconds: dict[str, float] = defaultdict(float)
    seen: dict[str, set[int]] = defaultdict(set)
    first, last = window[0][0], window[-1][1]
    for own in own_times:
        if own.work is not None and first <= own.start < last:
            name = "fused kernels of compiled layers" if own.name.startswith("## Call") else own.name
            seconds[name] += own.end - own.start
            seen[name].add(own.event)
    longest = sorted(seconds.items(), key=lambda item: -item[1])[:count]
    return [Operator(name, spent, len(seen[name])) for name, spent in longest]


def _by_work(own_times: Iterable[_OwnTime]) -> dict[str, Intervals]:
    spans: dict[str, Intervals] = defaultdict(list)
    for own in own_times:
        if own.work is not None:
            spans[own.work].append((own.start, own.end))
    return {work: union(found) for work, found in spans.items()}


def _spans(events: Iterable[Event]) -> Intervals:
    return [(event.start, event.end) for event in events]


def _marked(events: Iterable[Event], *marks: Mark, on_device: bool = False) -> Intervals:
    """Return when the marks were set, by the clock of the kernels they launched if `on_device`."""
    kind: Kind = "device mark" if on_device else "mark"
    return union((e.start, e.end) for e in events if e.kind == kind and e.name in marks)


def _communication(events: Iterable[Event], *, on_device: bool) -> list[Event]:
    if on_device:
        return [e for e in events if e.kind == "kernel" and _COLLECTIVE_KERNEL.search(e.name)]
    return [e for e in events if e.kind == "mark" and e.name.startswith("gloo:")]


def _kernels(events: Sequence[Event]) -> list[_OwnTime]:
    """Return the kernels that compute; kernels call nothing."""
    return [
        _OwnTime(index, event.name, _work_of_kernel(event.name), event.start, event.end)
        for index, event in enumerate(events)
        if event.kind == "kernel" and not _COLLECTIVE_KERNEL.search(event.name)
    ]


def _work_of_kernel(name: str) -> str:
    if _ATTENTION.search(name):
        return ATTENTION
    return PRODUCTS if _PRODUCT_KERNEL.search(name) else OTHER


def _work_of_operator(event: Event, work_of_caller: str | None) -> str | None:
    """What an operator does; within attention all is attention, within a product all is the product."""
    if event.kind == "mark" or event.name.startswith(_BACKWARD) or _COLLECTIVE.match(event.name):
        return None
    if work_of_caller == ATTENTION or _ATTENTION.search(event.name):
        return ATTENTION
    if work_of_caller == PRODUCTS or _PRODUCT.search(event.name):
        return PRODUCTS
    return OTHER if _COMPUTES.match(event.name) else None


def _own_times(events: Sequence[Event], *, lane: str) -> list[_OwnTime]:
    """Cut the time of a thread by the innermost event.

    An event that started a collective itself, or through what it called, is not computing in its own time:
    it may be waiting. Nor is Python that decides what to do with an operator, as selective checkpoints do.
    """
    nested = sorted(
        (event for event in events if event.lane == lane and event.kind in {"operator", "mark"}),
        key=lambda event: (event.start, -event.end),
    )
    work: list[str | None] = []
    pieces: list[tuple[int, float, float]] = []
    callers: list[int] = []
    idle: set[int] = set()
    clock = 0.0

    def leave_until(time: float) -> None:
        nonlocal clock
        while callers and nested[callers[-1]].end <= time:
            index = callers.pop()
            pieces.append((index, clock, nested[index].end))
            clock = max(clock, nested[index].end)

    for index, event in enumerate(nested):
        leave_until(event.start)
        if callers:
            pieces.append((callers[-1], clock, event.start))
        if _COLLECTIVE.match(event.name):
            idle.update(callers)
        elif event.name.startswith(_PYTHON):
            idle.add(index)
        clock = event.start
        work.append(_work_of_operator(event, work[callers[-1]] if callers else None))
        callers.append(index)
    leave_until(float("inf"))
    return [
        _OwnTime(index, nested[index].name, None if index in idle else work[index], start, end)
        for index, start, end in pieces
        if start < end
    ]


def union(spans: Iterable[tuple[float, float]]) -> Intervals:
    """Return sorted intervals that do not touch and cover what `spans` cover."""
    merged: Intervals = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        elif start < end:
            merged.append((start, end))
    return merged


def intersect(one: Intervals, other: Intervals) -> Intervals:
    """Return what two unions have in common."""
    common, i, j = [], 0, 0
    while i < len(one) and j < len(other):
        start, end = max(one[i][0], other[j][0]), min(one[i][1], other[j][1])
        if start < end:
            common.append((start, end))
        if one[i][1] < other[j][1]:
            i += 1
        else:
            j += 1
    return common


def subtract(one: Intervals, other: Intervals) -> Intervals:
    """Return what is in the union `one` and not in the union `other`."""
    if not one:
        return []
    edges = [one[0][0], *(edge for span in other for edge in span), one[-1][1]]
    gaps = [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end]
    return intersect(one, gaps)


def length(spans: Intervals) -> float:
    """Return the time that a union covers."""
    return sum(end - start for start, end in spans)
