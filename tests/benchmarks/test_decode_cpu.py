"""The decoding benchmark: its whole way without peers, on a tiny model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import gguf

from foreign_models import random_llama, write_gguf

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "decode_cpu.py"


def test_it_ends_with_one_json_object_that_names_every_task(tmp_path: Path):
    write_gguf(tmp_path / "m.gguf", random_llama(max_position_embeddings=2048), gguf.GGMLQuantizationType.F32)
    command = [sys.executable, SCRIPT, tmp_path / "m.gguf", "--alone", "--rounds", "1", "--steps", "2"]
    ended = subprocess.run([*command, "--threads", "1"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout.splitlines()[-1])
    assert {"ours", "peers", "ratio", "runs", "cpu"} <= result.keys()
    assert set(result["tasks"]) == {"decode", "prefill_512", "decode_8", "decode_32"}
    assert all(len(figures["runs"]["criadero"]) == 1 for figures in result["tasks"].values())
    assert all(figures["ours"] > 0 for figures in result["tasks"].values())
