"""Compiled layers give the numbers of eager ones; without a compiler training goes on, and that is said."""

from __future__ import annotations

import logging

import pytest
import torch

from criadero.parallel import compile as module
from criadero.parallel.config import ParallelConfig
from criadero.parallel.launch import Launch, distributed
from criadero.parallel.mesh import build_mesh
from criadero.parallel.parallelize import parallelize
from toy import batch, loss_of, toy


def one_step(device: torch.device, *, compiled: bool) -> tuple[list[str], list[torch.Tensor]]:
    model = toy()
    if compiled:
        assert module.compile_layers(model, device)
    parallelize(model, build_mesh(ParallelConfig(), device), param_dtype=torch.float32)
    loss_of(model, *batch(), valid=27).backward()
    named = dict(model.named_parameters())
    return list(named), [p.grad.full_tensor() for p in named.values()]


@pytest.mark.slow
@pytest.mark.skipif(module.find_compiler() is None, reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore")
def test_compiled_layers_have_the_same_names_and_gradients():
    with distributed(Launch(), torch.device("cpu"), timeout_seconds=60) as device:
        names, expected = one_step(device, compiled=False)
        compiled_names, actual = one_step(device, compiled=True)
    assert compiled_names == names
    for name, a, e in zip(names, actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-5, atol=1e-6, msg=name)


def test_without_a_compiler_compilation_is_off_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(module.shutil, "which", lambda _name: None)
    with caplog.at_level(logging.WARNING, logger="criadero"):
        assert not module.compile_layers(toy(), torch.device("cpu"))
        assert not module.compile_layers(toy(), torch.device("cpu"))
    said = [record.message for record in caplog.records if "compilation is off" in record.message]
    assert len(said) <= 1
    assert "no C++ compiler" in "".join(said)
