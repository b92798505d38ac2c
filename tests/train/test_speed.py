"""Utilisation by hand count and by the paper's own numbers; rates; devices nobody knows."""

from __future__ import annotations

import pytest
import torch

from criadero.model.presets import preset
from criadero.train import speed
from criadero.train.speed import Speedometer, peak_memory_bytes

CUDA = torch.device("cuda")
CPU = torch.device("cpu")


class Clock:
    """A clock that is set by hand, seconds."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(speed, "time", clock)
    return clock


def on_device(name: str, monkeypatch: pytest.MonkeyPatch, *, model: str = "7b", ranks: int = 1):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    return Speedometer(preset(model), seq_len=2048, world_size=ranks, device=CUDA)


def test_utilisation_of_the_7b_shape_by_hand(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    meter = on_device("NVIDIA A100-SXM4-80GB", monkeypatch, ranks=3)
    clock.now += 2.0
    found = meter.step(24_000)
    # 12,000 tokens/s on three GPUs; 6N = 6 * 6,738,415,616; attention 12 * 32 * 4096 * 2048.
    assert found["step_seconds"] == 2.0
    assert found["tokens_per_second"] == 12_000
    assert found["flops_per_second"] == 12_000 * 40_430_493_696
    assert found["mfu_6n"] == pytest.approx(12_000 * 40_430_493_696 / (3 * 312e12), rel=1e-12)
    assert found["mfu_palm"] == pytest.approx(12_000 * (40_430_493_696 + 3_221_225_472) / (3 * 312e12))


@pytest.mark.parametrize(
    ("model", "tokens_per_second", "mfu_6n", "mfu_palm"),
    [("7b", 3370, 43.7, 47.2), ("13b", 2055, 51.5, 54.8), ("33b", 733, 45.9, 48.2), ("65b", 380, 47.8, 49.7)],
)
def test_the_papers_speeds_show_as_the_papers_utilisation(
    model, tokens_per_second, mfu_6n, mfu_palm, clock, monkeypatch
):
    """Tokens per second and GPU follow from the GPU-hours of Table 15; A100, 312 TFLOP/s."""
    meter = on_device("NVIDIA A100-SXM4-80GB", monkeypatch, model=model)
    clock.now += 1.0
    found = meter.step(tokens_per_second)
    assert 100 * found["mfu_6n"] == pytest.approx(mfu_6n, abs=0.1)
    assert 100 * found["mfu_palm"] == pytest.approx(mfu_palm, abs=0.1)


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_an_unknown_device_has_no_utilisation(device, clock: Clock, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA RTX A1000")
    meter = Speedometer(preset("debug"), seq_len=64, world_size=1, device=device)
    clock.now += 1.0
    found = meter.step(100)
    assert found["mfu_6n"] is None
    assert found["mfu_palm"] is None
    assert found["tokens_per_second"] == 100


def test_rates_are_means_over_the_last_twenty_steps(clock: Clock):
    meter = Speedometer(preset("debug"), seq_len=64, world_size=1, device=CPU)
    for _ in range(30):
        clock.now += 10.0
        meter.step(10)
    for _ in range(19):
        clock.now += 1.0
        found = meter.step(10)
    # One step of 10 s and 19 of 1 s.
    assert found["tokens_per_second"] == pytest.approx(200 / 29)
    assert found["step_seconds"] == 1.0
    assert meter.seconds_per_step == pytest.approx(29 / 20)


def test_a_pause_does_not_count(clock: Clock):
    meter = Speedometer(preset("debug"), seq_len=64, world_size=1, device=CPU)
    clock.now += 1.0
    meter.step(10)
    clock.now += 500.0
    meter.exclude_pause()
    clock.now += 2.0
    found = meter.step(10)
    assert found["tokens_per_second"] == 5.0
    assert found["step_seconds"] == 2.0
    assert meter.seconds_per_step == 2.0


def test_peak_memory_on_cpu_is_this_process():
    assert 10e6 < peak_memory_bytes(CPU) < 100e9


def test_the_first_step_does_not_count_once_there_is_another(clock: Clock):
    meter = Speedometer(preset("debug"), seq_len=64, world_size=1, device=CPU)
    clock.now += 40.0
    assert meter.step(100)["tokens_per_second"] == 2.5
    assert meter.seconds_per_step == 40.0
    for _ in range(3):
        clock.now += 2.0
        assert meter.step(100)["tokens_per_second"] == 50.0
        assert meter.seconds_per_step == 2.0
