"""Which rank this process is, from torchrun's and Slurm's variables."""

from __future__ import annotations

import pytest

from criadero.errors import ConfigError, DistributedError
from criadero.parallel.launch import Launch, launch_from

TORCHRUN = {
    "RANK": "5",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "8",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "29500",
}
SRUN = {
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_JOB_ID": "1234567",
    "SLURM_STEP_NODELIST": "gpu[003-004,9]",
}


def test_a_plain_start_is_one_rank_without_network():
    assert launch_from({"HOME": "/root"}) == Launch(rank=0, local_rank=0, world_size=1, address=None)


def test_torchrun_variables_are_read():
    assert launch_from(TORCHRUN) == Launch(5, 1, 8, "10.0.0.1:29500")


def test_torchrun_wins_inside_a_slurm_step():
    assert launch_from(SRUN | TORCHRUN) == Launch(5, 1, 8, "10.0.0.1:29500")


@pytest.mark.parametrize(
    ("hosts", "first"),
    [("gpu[003-004,9]", "gpu003"), ("login", "login"), ("a1,b[1-2]", "a1"), ("n[7,9]-ib,x", "n7-ib")],
)
def test_slurm_ranks_meet_at_the_first_host_of_the_step(hosts: str, first: str):
    launch = launch_from(SRUN | {"SLURM_STEP_NODELIST": hosts})
    assert launch == Launch(3, 1, 4, f"{first}:{20000 + 1234567 % 20000}")


def test_a_batch_script_without_srun_is_one_rank():
    environ = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "a"}
    assert launch_from(environ) == Launch()


@pytest.mark.parametrize(
    ("change", "name"),
    [({"WORLD_SIZE": ""}, "WORLD_SIZE"), ({"RANK": "-1"}, "RANK"), ({"MASTER_PORT": "x"}, "MASTER_PORT")],
)
def test_a_malformed_variable_is_named(change: dict[str, str], name: str):
    with pytest.raises(DistributedError, match=name):
        launch_from(TORCHRUN | change)


def test_a_rank_outside_the_world_is_refused():
    with pytest.raises(DistributedError, match="rank 8"):
        launch_from(TORCHRUN | {"RANK": "8"})


def test_many_ranks_without_an_address_are_refused():
    with pytest.raises(DistributedError, match="no address"):
        launch_from({"RANK": "0", "WORLD_SIZE": "2"})


def test_zero_shards_and_zero_parts_are_refused_together():
    from criadero.config import validate
    from criadero.parallel.config import ParallelConfig

    with pytest.raises(ConfigError, match=r"(?s)2 faults.*`dp_shard`.*`tp`"):
        validate(ParallelConfig, {"tp": 0, "dp_shard": 0}, where="the test")
