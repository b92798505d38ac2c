"""Triton's kernel for quantised weights, where no GPU is, by Triton's interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROUNDING = {"torch.float32": 1e-6, "torch.float16": 1e-3, "torch.bfloat16": 8e-3}


def test_products_are_those_of_the_dequantised_matrix():
    done = subprocess.run(
        [sys.executable, Path(__file__).parent / "triton_products.py"],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert len(found) == 2 * 3 * 3 * 9
    assert [case for case in found if not case[-1] < ROUNDING[case[-2]]] == []
