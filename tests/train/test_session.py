"""The energy of a run is that of all its ranks, each metering the GPU it works on."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from criadero.carbon.reading import EnergyComponent, EnergyReading
from criadero.parallel.mesh import Mesh
from criadero.train.session import Session, own_gpus
from criadero.train.state import TrainState
from ranks import run_ranks


def joules_so_far(mesh: Mesh) -> float:
    component = EnergyComponent("gpu", 10.0 * (mesh.dp_rank + 1), "measured", "")
    ledger = SimpleNamespace(update=lambda **_: EnergyReading((component,), 1.0))
    state = TrainState(step=3)
    session = SimpleNamespace(ledger=ledger, mesh=mesh, state=state, first_state=state, earlier_joules=5.0)
    return Session.update_ledger(session)


def test_joules_are_those_of_all_ranks_and_of_earlier_attempts():
    assert run_ranks(joules_so_far, 2) == [35.0, 35.0]


def test_a_rank_meters_its_own_gpu_whatever_number_it_has_here(monkeypatch: pytest.MonkeyPatch):
    names = {torch.device("cuda", 1): "5c1b6b4e-0d2f"}
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda d: SimpleNamespace(uuid=names[d]))
    assert own_gpus(torch.device("cuda", 1)) == ["GPU-5c1b6b4e-0d2f"]
    assert own_gpus(torch.device("cpu")) == []
