"""Memory of the machine and of the control group, by files as Linux has them."""

from __future__ import annotations

from pathlib import Path

from criadero.train.free_memory import free_memory_bytes, machine


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def free(root: Path, files: dict[str, str]) -> int:
    write(root, {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n", **files})
    return free_memory_bytes(proc=root / "proc", cgroup=root / "group")


def test_the_memory_of_this_machine_is_known():
    assert 10e6 < free_memory_bytes() < 100e12
    assert machine() == machine()


def test_without_a_limit_it_is_what_the_system_has(tmp_path: Path):
    assert free(tmp_path, {}) == 8000 * 1024
    assert free(tmp_path, {"group/memory.max": "max\n", "group/memory.current": "5\n"}) == 8000 * 1024


def test_the_limit_of_a_container_counts_and_its_file_cache_does_not(tmp_path: Path):
    files = {
        "group/memory.max": "3000000\n",
        "group/memory.current": "1000000\n",
        "group/memory.stat": "anon 500000\ninactive_file 200000\nactive_file 100000\n",
    }
    assert free(tmp_path, files) == 2_300_000


def test_the_tightest_of_the_groups_above_a_job_counts(tmp_path: Path):
    files = {
        "proc/self/cgroup": "0::/slurm/job_7/step_0\n",
        "group/slurm/memory.max": "5000000\n",
        "group/slurm/memory.current": "1000000\n",
        "group/slurm/job_7/memory.max": "2000000\n",
        "group/slurm/job_7/memory.current": "500000\n",
    }
    assert free(tmp_path, files) == 1_500_000


def test_version_1_of_control_groups_is_read_too(tmp_path: Path):
    files = {
        "proc/self/cgroup": "4:cpu,cpuacct:/x\n5:memory:/docker/a\n",
        "group/memory/docker/a/memory.limit_in_bytes": "700000\n",
        "group/memory/docker/a/memory.usage_in_bytes": "300000\n",
    }
    assert free(tmp_path, files) == 400_000
