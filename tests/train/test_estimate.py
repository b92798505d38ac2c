"""What a run will cost, against what it then has; refusals before the start."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from criadero import files
from criadero.errors import ResourceError
from criadero.model.presets import PRESETS
from criadero.model.transformer import Transformer
from criadero.train import estimate as estimating
from criadero.train.config import RunConfig
from criadero.train.estimate import available_memory_bytes, estimate, require_resources
from criadero.train.loss import ChunkedCrossEntropy
from criadero.train.optimizer import make_optimizer, optimizer_tensors

CPU = torch.device("cpu")
P_7B = 6_738_415_616


def config(model: str, folder: Path = Path("runs/x"), **train) -> RunConfig:
    seq_len = min(2048, PRESETS[model].get("max_seq_len", 2048))
    train = {"tokens": 10**12, "batch_tokens": 2048 * 2048, "micro_batch_sequences": 2, **train}
    return RunConfig.model_validate(
        {
            "run": {"folder": str(folder)},
            "model": {"preset": model},
            "data": {"sources": [{"name": "text", "path": "data/text"}], "seq_len": seq_len},
            "train": train,
            "checkpoint": {"keep": 3},
        }
    )


def test_the_7b_run_by_hand():
    cost = estimate(config("7b"), world_size=8)
    assert cost.parameters == P_7B
    assert cost.total_steps == 238_418
    assert cost.batch_sequences == 2048
    assert cost.flops_per_token == 6 * P_7B
    assert cost.flops_per_token_with_attention == 6 * P_7B + 12 * 32 * 4096 * 2048
    assert cost.total_flops == 6 * P_7B * 10**12
    # Weights, gradients and two moments in float32, an eighth each; gathered weights in bfloat16.
    assert cost.state_bytes == 16 * P_7B // 8 + 2 * P_7B
    # 2,048 rows of 32,000 logits: float32, and twice bfloat16.
    assert cost.logits_bytes == 2048 * 32_000 * 8
    # Three checkpoints and one being written, 12 bytes a parameter; the model, 4 bytes.
    assert cost.disk_bytes == (4 * 12 + 4) * P_7B
    assert cost.memory_bytes == cost.state_bytes + cost.activation_bytes + cost.logits_bytes


def test_checkpoints_that_stay_for_good_are_counted():
    settings = config("debug", tokens=100 * 2048, batch_tokens=2048)
    kept = settings.checkpoint.model_copy(update={"keep_every_steps": 30})
    more = estimate(settings.model_copy(update={"checkpoint": kept})).disk_bytes
    parameters = estimate(settings).parameters
    assert more - estimate(settings).disk_bytes == 3 * 12 * parameters


@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
def test_state_bytes_are_those_of_the_real_tensors(compute_dtype: str):
    settings = config("debug", compute_dtype=compute_dtype)
    model = Transformer(settings.model)
    optimizer = make_optimizer(model, settings.optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    kept = [*model.parameters(), *(p.grad for p in model.parameters())]
    kept += optimizer_tensors(model, optimizer).values()
    gathered = sum(p.numel() for p in model.parameters()) * getattr(torch, compute_dtype).itemsize
    assert estimate(settings).state_bytes == sum(t.nbytes for t in kept) + gathered


def test_activations_are_an_upper_estimate_and_not_far_above():
    settings = config("demo", compute_dtype="float32", micro_batch_sequences=3)
    model = Transformer(settings.model)
    T = settings.data.seq_len
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    tokens_BT = torch.randint(settings.model.vocab_size, (3, T))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(tokens_BT, head=ChunkedCrossEntropy(tokens_BT, chunk_tokens=64))
    activation_bytes = estimate(settings).activation_bytes
    assert sum(saved.values()) < 1.1 * activation_bytes
    assert activation_bytes < 2 * sum(saved.values())


def test_a_run_that_does_not_fit_on_the_disk_is_refused(tmp_path: Path):
    # 65B: 52 bytes a parameter, more than any disk this runs on.
    with pytest.raises(ResourceError, match=r"the run with its checkpoints needs 3\.4 TB in .*are free"):
        require_resources(config("65b", tmp_path / "run"), world_size=1, device=CPU)


def free(monkeypatch: pytest.MonkeyPatch, *, disk: int = 10**15, memory: int = 10**15) -> None:
    usage = type("Usage", (), {"free": disk})
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(estimating, "available_memory_bytes", lambda device: memory)


def test_what_the_run_has_on_disk_already_is_not_asked_for_again(tmp_path: Path, monkeypatch):
    settings = config("debug", tmp_path / "run")
    needed = estimate(settings).disk_bytes
    saved = tmp_path / "run" / "checkpoints" / "step-5"
    saved.mkdir(parents=True)
    (saved / "tensors").write_bytes(bytes(needed // 2))
    free(monkeypatch, disk=needed // 2 + 1)
    require_resources(settings, world_size=1, device=CPU)
    free(monkeypatch, disk=needed // 2 - 1)
    with pytest.raises(ResourceError, match="checkpoints"):
        require_resources(settings, world_size=1, device=CPU)


def test_too_little_memory_names_a_setting_that_fits(tmp_path: Path, monkeypatch):
    settings = config("debug", tmp_path, micro_batch_sequences=16)
    cost = estimate(settings)
    free(monkeypatch, memory=cost.state_bytes + cost.logits_bytes + cost.activation_bytes // 2)
    with pytest.raises(ResourceError) as problem:
        require_resources(settings, world_size=1, device=CPU)
    assert files.format_bytes(cost.memory_bytes) in problem.value.message
    assert problem.value.hint == "set train.micro_batch_sequences=8 or less"
    smaller = settings.train.model_copy(update={"micro_batch_sequences": 8})
    require_resources(settings.model_copy(update={"train": smaller}), world_size=1, device=CPU)


def test_a_model_too_large_for_the_memory_is_told_from_a_sequence_too_long(tmp_path: Path, monkeypatch):
    settings = config("debug", tmp_path, micro_batch_sequences=1)
    cost = estimate(settings)
    free(monkeypatch, memory=cost.state_bytes - 1)
    with pytest.raises(ResourceError, match="states alone do not fit"):
        require_resources(settings, world_size=1, device=CPU)
    free(monkeypatch, memory=cost.memory_bytes - 1)
    with pytest.raises(ResourceError, match=r"data\.seq_len"):
        require_resources(settings, world_size=1, device=CPU)


def test_the_memory_of_this_machine_is_known():
    assert 10e6 < available_memory_bytes(CPU) < 100e12
