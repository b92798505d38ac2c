"""Who holds the others up: a thread on every rank that can still answer when the main thread cannot.

Entry points: `Watchdog`, which `launch.distributed` keeps beside the ranks, and `set_phase`, by which the
training says what it is doing. A rank that lost contact asks through the store under which the ranks met;
every rank's thread answers with its stack and last collective; the verdict goes back the same way, and a
rank whose main thread does not come back by itself is ended. Nothing is sent before somebody asks.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import traceback
from datetime import timedelta
from pathlib import Path

import torch
from torch._C._distributed_c10d import Store

from criadero import files
from criadero.parallel.hang_report import RankReport, as_text, describe_self, judge

logger = logging.getLogger("criadero")

_POLL_SECONDS = 0.5
_ANSWER_SECONDS = 5.0  # how long the asking rank waits for the answers
_LEAVE_SECONDS = 3.0  # how long a main thread has, after the verdict, to end by itself
_LINGER_SECONDS = 2.0  # how much longer rank 0 stays, so that all can read the verdict
_ORPHAN_SECONDS = 120.0
# NCCL ends the process at its own timeout, without a word about the others: ours has to come first.
_NCCL_MARGIN_SECONDS = 60.0
_ASKED, _VERDICT = "criadero/hang/asked", "criadero/hang/verdict"
_ARMED = ("forward and backward", "optimizer")

_phase: tuple[str, float] = ("starting", time.monotonic())
_warm = False


def set_phase(name: str) -> None:
    """Note what the main thread begins to do: a name for the report, and a sign that it lives.

    From the second step on, the phases of a step are timed on CUDA; the first may compile.
    """
    global _phase, _warm  # noqa: PLW0603 - one process is one rank, as with torch's default group
    _warm = _warm or (_phase[0] == "optimizer" and name != "optimizer")
    _phase = (name, time.monotonic())


def collective_timeout(device: torch.device, seconds: float) -> timedelta:
    """Return how long process groups wait: on CUDA longer than the watchdog, which reports first."""
    return timedelta(seconds=seconds + (_NCCL_MARGIN_SECONDS if device.type == "cuda" else 0))


class Watchdog:
    """Answers for this rank from `start` to `stop`.

    Args:
        store: any; a connection of its own is made, so that a main thread waiting in it is no obstacle.
        report: file for the full report of a hang; None keeps to the log.
        step_seconds: end the run if a phase of a step takes longer. For NCCL, whose collectives wait on the
            device and raise nothing here; None where a collective that waits too long raises.
    """

    def __init__(
        self,
        store: Store,
        *,
        rank: int,
        world_size: int,
        report: Path | None = None,
        step_seconds: float | None = None,
    ) -> None:
        self._store: Store = store.clone()  # type: ignore[attr-defined] # torch's stubs lack it
        self._rank, self._world_size = rank, world_size
        self._report_path, self._step_seconds = report, step_seconds
        self._gave_up: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="criadero-watchdog", daemon=True)

    @property
    def hint(self) -> str:
        """Where the whole answer is."""
        written = self._report_path is not None and self._report_path.exists()
        return f"`{self._report_path}` has the stacks of all ranks" if written else "see the log of that rank"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more: this rank leaves."""
        self._stop.set()
        self._thread.join(_ANSWER_SECONDS)

    def give_up(self, problem: BaseException) -> None:
        """Note where the main thread lost contact: it will end by itself, and its stack is this one."""
        self._gave_up = "".join(traceback.format_tb(problem.__traceback__))

    def inquire(self, store: Store) -> str:
        """Ask all ranks what they do and return the verdict; the first that asks writes the report.

        Never a collective. The others wait for its verdict, a few seconds at most.
        """
        asker = store.compare_set(_ASKED, "", str(self._rank)).decode()
        if asker == str(self._rank):
            return self._collect(store)
        return self._await_verdict(store) or self._judge(store)[0]

    def _collect(self, store: Store) -> str:
        verdict, reports = self._judge(store)
        logger.error("the run stands still: %s", as_text(verdict, reports, all_threads=False))
        if self._report_path is not None:
            try:
                files.write_text(self._report_path, as_text(verdict, reports, all_threads=True))
            except OSError as problem:
                logger.error("`%s` cannot be written: %s", self._report_path, problem.strerror)
        store.set(_VERDICT, verdict)  # the others look for the report once they know it
        return verdict

    def _judge(self, store: Store) -> tuple[str, list[RankReport]]:
        self._answer(store)  # also where the thread is the one that asks
        deadline = time.monotonic() + _ANSWER_SECONDS
        silent = list(range(self._world_size))
        while silent and time.monotonic() < deadline:
            silent = [rank for rank in silent if not store.check([_answer_key(rank)])]
            time.sleep(0.05)
        answered = [rank for rank in range(self._world_size) if rank not in silent]
        reports = [RankReport.from_json(store.get(_answer_key(rank)).decode()) for rank in answered]
        # NCCL tells nobody that a rank has left: those that wait for it learn its reason only here.
        left = [rank for rank in silent if store.check([farewell_key(rank)])]
        reasons = {rank: store.get(farewell_key(rank)).decode() for rank in left}
        failed = "; ".join(f"rank {rank} failed ({reason})" for rank, reason in reasons.items() if reason)
        return failed or judge(reports, silent=[rank for rank in silent if rank not in left]), reports

    def _answer(self, store: Store) -> None:
        phase, since = _phase
        seconds = time.monotonic() - since
        report = describe_self(self._rank, phase=phase, phase_seconds=seconds, gave_up=self._gave_up)
        store.set(_answer_key(self._rank), report.to_json())

    def _await_verdict(self, store: Store) -> str | None:
        deadline = time.monotonic() + 2 * _ANSWER_SECONDS
        while time.monotonic() < deadline:
            if store.check([_VERDICT]):
                return store.get(_VERDICT).decode()
            time.sleep(0.05)
        return None

    def _watch(self) -> None:
        try:
            while not self._stop.wait(_POLL_SECONDS):
                if self._store.check([_ASKED]):
                    self._answer(self._store)
                    self._leave(self._await_verdict(self._store), within_seconds=_LEAVE_SECONDS)
                    return
                if self._takes_too_long():
                    self._leave(self.inquire(self._store), within_seconds=0)
        except RuntimeError:
            # The store is gone, and with it rank 0. The main thread hears of it in its next collective.
            self._leave(None, within_seconds=_ORPHAN_SECONDS)

    def _takes_too_long(self) -> bool:
        phase, since = _phase
        too_long = self._step_seconds is not None and time.monotonic() - since > self._step_seconds
        return too_long and _warm and phase in _ARMED

    def _leave(self, verdict: str | None, *, within_seconds: float) -> None:
        """End this process, if its main thread neither ends by itself nor has lost contact on its own.

        The library ends a process nowhere else: this main thread does not come back to be told.
        """
        linger = _LINGER_SECONDS if self._rank == 0 else 0  # the store may live in rank 0: the last to go
        if self._stop.wait(within_seconds + linger) or self._gave_up is not None:
            return
        logger.error("rank %d is ended by its watchdog: %s", self._rank, verdict or "rank 0 is gone")
        for handler in logger.handlers:
            handler.flush()
        os._exit(1)


def farewell_key(rank: int) -> str:
    """Where a rank that ends by an error leaves its reason; empty if it only lost contact."""
    return f"criadero/left/{rank}"


def _answer_key(rank: int) -> str:
    return f"criadero/hang/answer/{rank}"
