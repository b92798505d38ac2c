"""A profile of some steps of a run (`profile=true`). Entry point: `profiled`, a context around the loop.

After a few steps in which caches fill, it records a few with torch.profiler. Each rank writes what it saw
into RUN/profile, for a trace viewer, and rank 0 one page that says where the time went (timeline.py). What
goes wrong with a profile is said and never ends the run.
"""

from __future__ import annotations

import gzip
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.profiler import ProfilerAction, ProfilerActivity, profile, record_function, schedule

from criadero import files
from criadero.notices import say_once
from criadero.train.hooks import NoHook
from criadero.train.session import Session
from criadero.train.timeline import EXPOSED, Breakdown, Mark, break_down, read_trace

logger = logging.getLogger("criadero")

SKIPPED_STEPS = 3
RECORDED_STEPS = 3
# Beyond so many micro-batches a step has events enough, and a trace of several would be unwieldy.
_MANY_MICRO_BATCHES = 32
_FORMAT_VERSION = 1

T = TypeVar("T")


@contextmanager
def profiled(session: Session) -> Iterator[None]:
    """Record steps taken inside the block, if the config asks for it; resumed runs record again."""
    if not session.config.profile or session.state.step >= session.config.total_steps:
        yield
        return
    recorder = _Recorder(session)
    session.hooks = [*session.hooks, recorder]
    try:
        yield
    finally:
        recorder.close()


def waited_for(items: Iterator[T]) -> Iterator[T]:
    """Yield the items; the time until each comes is marked as waiting for data."""
    while True:
        with record_function(Mark.DATA):
            found = list(islice(items, 1))
        if not found:
            return
        yield found[0]


class _Recorder(NoHook):
    """Runs torch.profiler over steps of a session, and writes what it recorded."""

    def __init__(self, session: Session) -> None:
        self._session = session
        config, self._first_step = session.config, session.state.step
        left = config.total_steps - self._first_step
        per_rank = -(-config.batch_sequences // session.mesh.dp_size)
        many = per_rank > _MANY_MICRO_BATCHES * config.train.micro_batch_sequences
        self._recorded = min(1 if many else RECORDED_STEPS, left)
        self._skipped = min(SKIPPED_STEPS, left - self._recorded)
        self._taken = 0
        plan = _plan(skipped=self._skipped, recorded=self._recorded)
        self._profiler: profile | None = _start(plan, session.mesh.device, on_recorded=self._write)

    def after_step(self, *_: Any, **__: Any) -> None:
        """Count a step; after the last recorded one everything is written and nothing costs any more."""
        if self._profiler is None:
            return
        self._taken += 1
        self._profiler.step()
        if self._taken == self._skipped + self._recorded:
            self.close()
            self._session.speedometer.exclude_pause()

    def close(self) -> None:
        """Stop recording; the steps of a run that ends meanwhile are written."""
        profiler, self._profiler = self._profiler, None
        if profiler is not None:
            profiler.stop()

    def _write(self, profiler: profile) -> None:
        folder, rank = self._session.config.run.folder / "profile", dist.get_rank()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            trace = _write_trace(profiler, folder / f"rank-{rank:05d}.trace.json.gz")
            if self._session.mesh.is_first:
                events = read_trace(json.loads(trace))
                self._summarise(break_down(events, num_steps=self._taken - self._skipped), folder)
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as problem:
            reason = problem.strerror if isinstance(problem, OSError) else problem
            say_once(f"the profile in `{folder}` cannot be written: {reason}; training goes on")

    def _summarise(self, found: Breakdown, folder: Path) -> None:
        session = self._session
        tokens_per_second = session.config.train.batch_tokens * found.steps / found.seconds
        first = self._first_step + self._skipped + 1
        values: dict[str, Any] = {
            "format_version": _FORMAT_VERSION,
            "device": session.mesh.device.type,
            "ranks": dist.get_world_size(),
            "first_step": first,
            "steps": found.steps,
            "steps_before": self._skipped,
            "step_seconds": found.seconds / found.steps,
            **session.speedometer.rates(tokens_per_second),
            "shares": found.shares,
            "hidden_communication": found.hidden_communication,
            "recomputed": found.recomputed,
            "operators": [asdict(operator) for operator in found.operators],
        }
        files.write_json(folder / "summary.json", values)
        files.write_text(folder / "summary.md", _page(values, found))
        logger.info("profile of %d steps: `%s`", found.steps, folder / "summary.md")


def _plan(*, skipped: int, recorded: int) -> Callable[[int], ProfilerAction]:
    """Say when to record; torch.profiler itself warms up in the last of the skipped steps."""
    warmup = min(1, skipped)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Profiler won't be using warmup")
        plan: Callable[[int], ProfilerAction] = schedule(
            wait=skipped - warmup, warmup=warmup, active=recorded, repeat=1
        )
    return plan


def _start(
    plan: Callable[[int], ProfilerAction], device: torch.device, *, on_recorded: Callable[[profile], None]
) -> profile:
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    # There is one cycle: `acc_events` changes nothing, but torch 2.11 warns of later ones without it.
    profiler = profile(activities=activities, schedule=plan, on_trace_ready=on_recorded, acc_events=True)
    profiler.start()
    return profiler


def _write_trace(profiler: profile, path: Path) -> bytes:
    """Write the trace compressed, and return it as it was before.

    Raises:
        OSError: there is no room for it, or no way to write there.
        ValueError: torch.profiler could write a part of it only; of a full disk it says nothing.
    """
    plain = files.temporary_path(path)
    try:
        profiler.export_chrome_trace(str(plain))
        trace = plain.read_bytes()
    finally:
        plain.unlink(missing_ok=True)
    if not trace.rstrip().endswith(b"}"):
        raise ValueError("the trace is not whole")
    with files.atomic_write(path) as stream:
        stream.write(gzip.compress(trace, compresslevel=5, mtime=0))
    return trace


def _page(values: Mapping[str, Any], found: Breakdown) -> str:
    """Return summary.md."""
    first, steps, step_seconds = values["first_step"], values["steps"], values["step_seconds"]
    communication = found.shares[EXPOSED] + found.hidden_communication
    hidden = found.hidden_communication / communication if communication else 0.0
    lines = [
        f"# Where the time of steps {first} to {first + steps - 1} went",
        "",
        f"Rank 0 of {values['ranks']} on {values['device']}. {step_seconds:.4g} s a step, "
        f"{values['tokens_per_second']:,.0f} tokens/s in all, {_utilisation(values)}.",
        *_caveats(values),
        "",
        *_table(["part of the step", "share", "ms a step"], _share_rows(found, step_seconds)),
        "",
        f"Communication took {communication:.1%} of the time, {hidden:.0%} of it hidden behind computation.",
        _recomputed(found),
        "",
        *_table(
            ["operator, by time of its own", "share", "ms a step", "events a step"], _operator_rows(found)
        ),
        "",
        "The rest is in `rank-*.trace.json.gz`, one file a rank: open it in https://ui.perfetto.dev or",
        "chrome://tracing, which read it without sending it anywhere.",
    ]
    return "\n".join(lines) + "\n"


def _utilisation(values: Mapping[str, Any]) -> str:
    if values["mfu_6n"] is None:
        return "MFU unknown, as is the peak of this device"
    return f"MFU {values['mfu_6n']:.1%} (6N), {values['mfu_palm']:.1%} (with attention)"


def _caveats(values: Mapping[str, Any]) -> list[str]:
    """Say what to know before trusting the numbers."""
    found = ["Recording itself slows a step down, most where operators are small."]
    if values["steps"] < RECORDED_STEPS or values["steps_before"] < SKIPPED_STEPS:
        found.append(
            f"Only {values['steps']} steps, after {values['steps_before']} that were not recorded: "
            "the run was short, or its steps have many micro-batches."
        )
    return found


def _recomputed(found: Breakdown) -> str:
    if found.recomputed is None:
        return "No recomputation is seen; that within compiled layers would not be."
    return f"Recomputation in the backward pass took {found.recomputed:.1%}, which is in the shares above."


def _share_rows(found: Breakdown, step_seconds: float) -> list[list[str]]:
    return [
        [kind, f"{share:.1%}", f"{share * step_seconds * 1e3:.4g}"] for kind, share in found.shares.items()
    ]


def _operator_rows(found: Breakdown) -> list[list[str]]:
    return [
        [
            f"`{operator.name[:80]}`",
            f"{operator.seconds / found.seconds:.1%}",
            f"{operator.seconds / found.steps * 1e3:.4g}",
            f"{operator.events / found.steps:.4g}",
        ]
        for operator in found.operators
    ]


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Return a table in Markdown."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
