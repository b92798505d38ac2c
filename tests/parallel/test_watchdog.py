"""A rank that keeps the others waiting is named, with its stack and everybody's last collective; all ends."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from criadero.parallel.hang_report import RankReport, as_text, judge, waits_in_collective
from criadero.parallel.mesh import Mesh
from criadero.parallel.watchdog import Watchdog, set_phase
from ranks import Outcome, run_until_end

pytestmark = pytest.mark.xdist_group("watchdog")


def two_collectives(mesh: Mesh, sleeper: int, seconds: float) -> float:
    """One collective together; before the second one, one rank sleeps."""
    values = torch.ones(7)
    dist.all_reduce(values)
    if dist.get_rank() == sleeper:
        set_phase("data")
        time.sleep(seconds)
    else:
        set_phase("forward and backward")
    dist.all_reduce(values)
    return float(values[0])


def reported(outcomes: list[Outcome], report: Path) -> str:
    """What was written, after a check of how every rank ended: with an error of ours or with code 1."""
    for rank, outcome in enumerate(outcomes):
        ended_itself = outcome.exit_code == 0 and "DistributedError" in (outcome.failure or "")
        assert ended_itself or outcome.exit_code == 1, f"rank {rank}: {outcome}"
    return report.read_text()


def test_a_rank_that_hangs_is_named_with_its_stack_and_every_last_collective(tmp_path: Path):
    path = tmp_path / "hang-report.txt"
    outcomes = run_until_end(two_collectives, 3, 1, 500.0, timeout=90, collective_seconds=4, hang_report=path)
    assert outcomes[1].exit_code == 1  # ended by its own thread: its main thread sleeps
    text = reported(outcomes, path)
    assert text.startswith("rank 1 (")
    assert "hangs in data for" in text.splitlines()[0]
    assert "all_reduce number 1 of group 0 (default_pg), [[7]]" in text.splitlines()[0]
    of_rank_1 = text.split("=== rank 1")[1].split("=== rank")[0]
    assert "time.sleep(seconds)" in of_rank_1
    assert "last collective begun: all_reduce number 1 " in of_rank_1
    waiting = text.replace("=== rank 1" + of_rank_1, "")
    assert "=== rank 0 (" in waiting
    assert "=== rank 2 (" in waiting
    assert "phase: forward and backward" in waiting
    assert "last collective begun: all_reduce number 2 " in waiting
    assert "last collective finished: all_reduce number 1 " in waiting
    assert "dist.all_reduce(values)" in waiting
    for outcome in outcomes:
        if outcome.failure != "no answer":
            assert "lost contact: rank 1 (" in outcome.failure
            assert f"hint: `{path}` has the stacks of all ranks" in outcome.failure


def test_a_rank_that_is_only_slow_is_left_alone(tmp_path: Path):
    path = tmp_path / "hang-report.txt"
    outcomes = run_until_end(two_collectives, 2, 1, 2.0, timeout=90, collective_seconds=10, hang_report=path)
    assert [(outcome.value, outcome.exit_code) for outcome in outcomes] == [(4.0, 0)] * 2
    assert not path.exists()


def wait_on_the_device(mesh: Mesh, path: str, step_seconds: float) -> None:
    """A step in which the collective neither ends nor raises, as on CUDA: the timer has to notice."""
    store = dist.distributed_c10d._get_default_store()
    rank = dist.get_rank()
    watchdog = Watchdog(store, rank=rank, world_size=2, report=Path(path), step_seconds=step_seconds)
    watchdog.start()
    for phase in ("forward and backward", "optimizer", "data"):
        set_phase(phase)
    if rank == 1:
        time.sleep(500)
    set_phase("forward and backward")
    dist.barrier()


def test_where_no_collective_raises_the_time_of_the_step_is_noticed(tmp_path: Path):
    path = tmp_path / "hang-report.txt"
    outcomes = run_until_end(wait_on_the_device, 2, str(path), 1.0, timeout=90, collective_seconds=300)
    assert [outcome.exit_code for outcome in outcomes] == [1, 1]
    text = path.read_text()
    assert "hangs in data for" in text.splitlines()[0]
    assert text.startswith("rank 1 (")
    assert "time.sleep(500)" in text.split("=== rank 1")[1]


def long_phases(mesh: Mesh, path: str, step_seconds: float) -> str:
    """The first step, which compiles, and what is no step, may take as long as they like."""
    store = dist.distributed_c10d._get_default_store()
    rank = dist.get_rank()
    watchdog = Watchdog(store, rank=rank, world_size=2, report=Path(path), step_seconds=step_seconds)
    watchdog.start()
    for phase in ("forward and backward", "optimizer", "saving"):
        set_phase(phase)
        time.sleep(0.6)
    watchdog.stop()
    return "well"


def test_the_first_step_and_what_is_no_step_may_take_long(tmp_path: Path):
    path = tmp_path / "hang-report.txt"
    outcomes = run_until_end(long_phases, 2, str(path), 0.3, timeout=90)
    assert [outcome.value for outcome in outcomes] == ["well", "well"]
    assert not path.exists()


def lose_rank_0(mesh: Mesh) -> None:
    """The rank that keeps the store dies while the other one sleeps."""
    dist.barrier()
    if dist.get_rank() == 0:
        os._exit(3)
    time.sleep(500)


def test_a_rank_that_hangs_does_not_outlive_rank_0():
    outcomes = run_until_end(sleep_as_orphan, 2, timeout=90, collective_seconds=300)
    assert [outcome.exit_code for outcome in outcomes] == [3, 1]


def sleep_as_orphan(mesh: Mesh) -> None:
    from criadero.parallel import watchdog

    watchdog._ORPHAN_SECONDS = 1.0
    lose_rank_0(mesh)


def report_of(rank: int, *, waiting: bool, **positions: int) -> RankReport:
    return RankReport(
        rank, f"host, process {rank}", "data", 3.0, "b", "f", waiting, positions, {"MainThread": "in x"}
    )


def test_the_rank_at_fault_is_the_one_that_waits_for_nobody():
    sleeping = report_of(3, waiting=False, world=4, tp=9)
    its_neighbour = report_of(2, waiting=True, world=4, tp=10)
    others = [report_of(rank, waiting=True, world=5) for rank in (0, 1)]
    assert judge([*others, its_neighbour, sleeping], silent=[]).startswith("rank 3 (host, process 3) hangs")


def test_a_rank_that_is_about_to_leave_is_not_taken_for_the_one_at_fault():
    leaving, sleeping = report_of(0, waiting=False, world=5), report_of(1, waiting=False, world=4)
    verdict = judge([leaving, sleeping], silent=[])
    assert "rank 1 " in verdict
    assert "rank 0 " not in verdict


def test_a_stack_that_ends_in_torch_distributed_waits_whether_there_is_a_record_or_not():
    ours = '  File "/home/me/criadero/train/loop.py", line 5, in _run_steps\n    for batch in steps:\n'
    theirs = '  File "/lib/torch/distributed/distributed_c10d.py", line 9, in all_reduce\n    work.wait()\n'
    assert waits_in_collective(ours + theirs)
    assert not waits_in_collective(theirs + ours)


def test_ranks_that_wait_in_different_collectives_show_who_is_behind():
    ahead, behind = report_of(0, waiting=True, world=5), report_of(1, waiting=True, world=4)
    assert judge([ahead, behind], silent=[]).startswith("rank 1 ")


def test_ranks_that_all_wait_in_one_collective_blame_the_network():
    everybody = [report_of(rank, waiting=True, world=5) for rank in range(3)]
    assert "the network failed" in judge(everybody, silent=[])


def test_a_rank_without_an_answer_is_named_before_all_others():
    assert judge([report_of(0, waiting=False)], silent=[1]) == "rank 1 died or hangs"


def test_ranks_that_do_the_same_are_shown_once():
    text = as_text("verdict", [report_of(rank, waiting=True) for rank in range(40)], all_threads=True)
    assert text.count("in x") == 1
    assert text.count("=== rank ") == 40
