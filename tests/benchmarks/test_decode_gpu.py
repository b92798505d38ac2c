"""The benchmark of decoding on a GPU: its whole way on the CPU, with a tiny model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "decode_gpu.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)


def test_it_ends_with_one_json_object_that_names_all_weights():
    ended = run("--device", "cpu", "--model", "toy", "--rounds", "1", "--steps", "4")
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout.splitlines()[-1])
    assert {"ours", "peers", "ratio", "int8_over_bfloat16", "goals", "cpu"} <= result.keys()
    assert set(result["kinds"]) == {"bfloat16", "int8", "int4", "plain"}
    for by_batch in result["kinds"].values():
        assert set(by_batch) == {"1", "8", "32"}
        assert all(figures["tokens_per_second"] > 0 for figures in by_batch.values())


def test_a_real_size_is_for_a_gpu():
    ended = run("--device", "cpu", "--model", "7b")
    assert ended.returncode == 2
    assert "decode_cpu.py measures CPUs" in ended.stderr
