"""The GPU benchmark: what can be known without a GPU, and its whole way at a toy size on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import train_gpu  # noqa: E402
from process import Process  # noqa: E402

sys.path.remove(str(BENCHMARKS))  # its corpus.py would hide the folder of tests of that name

NO_MEMORY = """
import contextlib, torch

@contextlib.contextmanager
def training(shape):
    def step(tokens_BT, targets_BT):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    yield step, 1
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, BENCHMARKS / "train_gpu.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def bench(model: str, *, limit_seconds: float = 1e9) -> train_gpu.Bench:
    systems = {"criadero": Path(sys.executable), "huggingface": Path(sys.executable)}
    return train_gpu.Bench(model, "cuda", systems, steps=1, limit_seconds=limit_seconds, compiled=True)


def measured(rate: float, *, device: str = "NVIDIA H200") -> dict[str, Any]:
    return {
        "setting": "paper:4", "tokens_per_second": rate, "watts": 650.0, "device_name": device, "loss": 10.4,
        "peak_allocated_bytes": 10**11, "peak_reserved_bytes": 2 * 10**11, "parameters": 1, "torch": "2.11",
        "attention": ["aten::_scaled_dot_product_flash_attention"], "ready_seconds": 1.0,
    }  # fmt: skip


def test_without_a_gpu_it_says_so_and_fails(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA device") as ended:
        train_gpu.main([])
    assert "--device cpu --model toy" in str(ended.value.code)  # text as the code ends a program with 1


@pytest.mark.slow
def test_the_whole_way_runs_on_the_cpu_and_ends_with_one_json_object():
    ended = run(
        *("--device", "cpu", "--model", "toy", "--eager", "--systems", "criadero", "--profile"),
        *("--use", "criadero=paper:2", "--rounds", "1", "--steps", "1"),
    )
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    found = json.loads(lines[-1])
    assert found["runs"]["criadero"] == [pytest.approx(found["ours"])]
    assert found["ratio"] is None
    assert found["systems"]["criadero"]["mfu_6n"] is None
    assert any("flash_attention" in name for name in found["systems"]["criadero"]["attention"])
    assert any("unknown peak, no MFU" in line for line in lines)
    assert any("aten::mm" in line for line in lines)


def test_a_process_that_lacks_memory_says_so_as_its_last_answer(tmp_path: Path):
    runner = tmp_path / "runner.py"
    runner.write_text(NO_MEMORY)
    process = Process([sys.executable, "-P", BENCHMARKS / "peers" / "serve.py", runner], threads=1)
    question = {"vocab_size": 8, "batch": 1, "seq_len": 4, "threads": 1, "device": "cpu"}
    try:
        found = train_gpu._asked(process, question, steps=1, profile=False)
    finally:
        process.stop()
    assert found == {"failure": "CUDA out of memory"}


def test_utilisation_is_that_of_the_two_counts_and_none_where_the_peak_is_unknown():
    of_h200 = train_gpu.figures(bench("7b"), [measured(13_093.0)])
    assert of_h200["mfu_palm"] == pytest.approx(0.578, abs=1e-3)
    assert of_h200["mfu_6n"] == pytest.approx(0.535, abs=1e-3)
    unknown = train_gpu.figures(bench("7b"), [measured(13_093.0, device="NVIDIA H200 MIG 1g.18gb")])
    assert unknown["mfu_palm"] is unknown["mfu_6n"] is None


def test_the_ratio_is_of_medians_and_its_spread_of_rounds():
    found = {"criadero": [measured(rate) for rate in (110.0, 120.0, 100.0)]}
    found["huggingface"] = [measured(rate) for rate in (100.0, 100.0, 125.0)]
    result = train_gpu.summary(bench("7b"), found)
    assert (result["ours"], result["peers"], result["ratio"]) == (110.0, {"huggingface": 100.0}, 1.1)
    assert result["ratio_spread"] == [0.8, 1.2]


def test_a_system_of_which_nothing_ran_has_no_number():
    found = {"criadero": [measured(110.0)], "huggingface": [{"setting": "none:1", "failure": "no memory"}]}
    result = train_gpu.summary(bench("7b"), found)
    assert (result["ratio"], result["peers"]) == (None, {"huggingface": None})
    assert train_gpu.best_of(found) == {"criadero": "paper:4"}


def test_a_round_that_time_runs_out_in_does_not_count(monkeypatch: pytest.MonkeyPatch):
    some = bench("7b", limit_seconds=0.0)
    assert train_gpu.alternate(some, {"criadero": "paper:4"}, rounds=3, profile=False) == {"criadero": []}
    answers = iter([False, False, False, True])
    monkeypatch.setattr(train_gpu.Bench, "is_over", lambda self: next(answers))
    monkeypatch.setattr(train_gpu.Bench, "measure", lambda self, *_, **__: measured(1.0))
    found = train_gpu.alternate(
        some, {"criadero": "paper:4", "huggingface": "full:4"}, rounds=2, profile=False
    )
    assert {system: len(runs) for system, runs in found.items()} == {"criadero": 1, "huggingface": 1}


@pytest.mark.parametrize(
    ("kernels", "fused"),
    [
        (["flash_attention", "flash_attention_backward"], True),
        (["cudnn_attention"], True),
        (["efficient_attention"], True),
        (["attention_math"], False),
        (["flash_attention", "attention_math"], False),
        ([], False),
    ],
)
def test_attention_is_fused_if_no_kernel_is_the_plain_one(kernels: list[str], fused: bool):
    operators = [f"aten::_scaled_dot_product_{kernel}" for kernel in kernels]
    assert train_gpu.is_fused(["aten::scaled_dot_product_attention", *operators]) is fused


@pytest.mark.parametrize("text", ["litgpt=paper:4", "nanogpt=none:4", "criadero=some:4", "criadero=none"])
def test_settings_that_do_not_exist_are_refused(text: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        train_gpu.parsed(["--use", text])
    assert "--use" in capsys.readouterr().err


def test_every_candidate_cuts_the_batch_evenly():
    for model, by_system in train_gpu.CANDIDATES.items():
        for setting in (setting for settings in by_system.values() for setting in settings):
            assert train_gpu.MODELS[model]["batch"] % int(setting.partition(":")[2]) == 0
