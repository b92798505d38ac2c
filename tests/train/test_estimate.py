"""What a run will cost, against what it then has; refusals before the start."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from criadero import files
from criadero.errors import DistributedError, ResourceError
from criadero.model.presets import PRESETS
from criadero.model.transformer import Transformer
from criadero.planner.devices import device_of
from criadero.train import estimate as estimating
from criadero.train.config import RunConfig
from criadero.train.estimate import epochs_by_source, estimate, require_memory, require_resources
from criadero.train.loss import ChunkedCrossEntropy
from criadero.train.optimizer import make_optimizer, optimizer_tensors

P_7B = 6_738_415_616


def config(model: str, folder: Path = Path("runs/x"), **train) -> RunConfig:
    seq_len = min(2048, PRESETS[model].get("max_seq_len", 2048))
    parallel = train.pop("parallel", {})
    train = {"tokens": 10**12, "batch_tokens": 2048 * 2048, "micro_batch_sequences": 2, **train}
    return RunConfig.model_validate(
        {
            "run": {"folder": str(folder)},
            "model": {"preset": model},
            "data": {"sources": [{"name": "text", "path": "data/text"}], "seq_len": seq_len},
            "train": train,
            "checkpoint": {"keep": 3},
            "parallel": parallel,
        }
    )


def test_the_7b_run_by_hand():
    cost = estimate(config("7b"), world_size=8)
    assert cost.parameters == P_7B
    assert cost.total_steps == 238_418
    assert cost.batch_sequences == 2048
    assert (cost.ranks, cost.micro_batches, cost.mesh["dp_shard"]) == (8, 128, 8)
    assert cost.flops_per_token == 6 * P_7B
    assert cost.flops_per_token_with_attention == 6 * P_7B + 12 * 32 * 4096 * 2048
    assert cost.total_flops == 6 * P_7B * 10**12
    # Weights, gradients and two moments in float32, an eighth each.
    assert cost.memory.states == 16 * P_7B // 8
    # Three checkpoints and one being written, 12 bytes a parameter; the model, 4 bytes.
    assert cost.disk_bytes == (4 * 12 + 4) * P_7B
    parts = cost.memory.by_part()
    assert parts.pop("total") == sum(parts.values())


def test_the_papers_65b_run_takes_the_papers_21_days():
    settings = config("65b", tokens=1_400_000_000_000, parallel={"tp": 8})
    speed = estimate(settings, world_size=2048).speed_on(device_of("A100"))
    assert speed["tokens_per_second"] / 2048 == pytest.approx(380, rel=0.005)
    assert speed["days"] == pytest.approx(21, rel=0.02)


def test_checkpoints_that_stay_for_good_are_counted():
    settings = config("debug", tokens=100 * 2048, batch_tokens=2048)
    kept = settings.checkpoint.model_copy(update={"keep_every_steps": 30})
    more = estimate(settings.model_copy(update={"checkpoint": kept})).disk_bytes
    parameters = estimate(settings).parameters
    assert more - estimate(settings).disk_bytes == 3 * 12 * parameters


def test_state_bytes_are_those_of_the_real_tensors():
    settings = config("debug")
    model = Transformer(settings.model)
    optimizer = make_optimizer(model, settings.optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    kept = [*model.parameters(), *(p.grad for p in model.parameters())]
    kept += optimizer_tensors(model, optimizer).values()
    assert estimate(settings).memory.states == sum(t.nbytes for t in kept)


def test_activations_are_those_that_autograd_keeps():
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
    # What the loss keeps is the gradient of the output matrix, counted with the logits.
    of_output = 4 * settings.model.vocab_size * settings.model.dim
    assert sum(saved.values()) - of_output == pytest.approx(estimate(settings).memory.activations, rel=0.05)


def test_each_policy_of_recomputation_keeps_less_and_more_ranks_hold_less():
    totals = [
        estimate(config("7b", recompute=policy)).memory.activations for policy in ("none", "paper", "full")
    ]
    assert totals == sorted(totals, reverse=True)
    shared = config("7b", parallel={"tp": 4})
    assert (
        estimate(shared, world_size=8).memory.activations
        < estimate(config("7b"), world_size=8).memory.activations / 3
    )


def test_gradients_are_whole_between_micro_batches_only():
    assert estimate(config("7b"), world_size=8).memory.accumulated_gradients > 0
    assert estimate(config("7b"), world_size=1024).memory.accumulated_gradients == 0


def test_a_mesh_that_does_not_fit_the_ranks_is_an_error():
    with pytest.raises(DistributedError, match="does not give 12 ranks"):
        estimate(config("7b", parallel={"tp": 8}), world_size=12)


def test_epochs_are_unknown_while_shards_are_missing():
    assert epochs_by_source(config("debug")) is None


def test_a_run_that_does_not_fit_on_the_disk_is_refused(tmp_path: Path):
    # 65B: 52 bytes a parameter, more than any disk this runs on.
    with pytest.raises(ResourceError, match=r"the run with its checkpoints needs 3\.4 TB in .*are free"):
        require_resources(config("65b", tmp_path / "run"), world_size=1, device="cpu")


def free(monkeypatch: pytest.MonkeyPatch, *, disk: int = 10**15, memory: int = 10**15) -> None:
    usage = type("Usage", (), {"free": disk})
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(estimating, "free_memory_bytes", lambda: memory)


def test_what_the_run_has_on_disk_already_is_not_asked_for_again(tmp_path: Path, monkeypatch):
    settings = config("debug", tmp_path / "run")
    needed = estimate(settings).disk_bytes
    saved = tmp_path / "run" / "checkpoints" / "step-5"
    saved.mkdir(parents=True)
    (saved / "tensors").write_bytes(bytes(needed // 2))
    free(monkeypatch, disk=needed // 2 + 1)
    require_resources(settings, world_size=1, device="cpu")
    free(monkeypatch, disk=needed // 2 - 1)
    with pytest.raises(ResourceError, match="checkpoints"):
        require_resources(settings, world_size=1, device="cpu")


def test_ranks_on_one_machine_share_its_memory(tmp_path: Path, monkeypatch):
    settings = config("debug", tmp_path, batch_tokens=4096)
    needed = estimate(settings, world_size=2).memory.total
    free(monkeypatch, memory=2 * needed)
    require_resources(settings, world_size=2, device="cpu", local_ranks=2)
    free(monkeypatch, memory=2 * needed - 2)
    with pytest.raises(ResourceError, match="for each of the 2 ranks on it"):
        require_resources(settings, world_size=2, device="cpu", local_ranks=2)


CHANGES = [
    {"micro_batch_sequences": 8},
    {"micro_batch_sequences": 1},
    {"recompute": "full"},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_too_little_memory_names_a_setting_that_fits(change, tmp_path: Path, monkeypatch):
    settings = config("debug", tmp_path, batch_tokens=128 * 16, micro_batch_sequences=16)
    smaller = settings.model_copy(update={"train": settings.train.model_copy(update=change)})
    free(monkeypatch, memory=estimate(smaller).memory.total)
    with pytest.raises(ResourceError) as problem:
        require_resources(settings, world_size=1, device="cpu")
    assert files.format_bytes(estimate(settings).memory.total) in problem.value.message
    named = dict(pair.split("=") for pair in (problem.value.hint or "").split(" (")[0][4:].split(", "))
    fitting = RunConfig.model_validate(
        {
            **settings.model_dump(),
            "train": settings.train.model_dump()
            | {k.split(".")[1]: v if v.isalpha() else int(v) for k, v in named.items()},
        }
    )
    require_resources(fitting, world_size=1, device="cpu")


def test_states_alone_too_large_ask_for_more_ranks_and_nothing_at_all_is_said_so(tmp_path: Path):
    settings = config("7b", tmp_path, micro_batch_sequences=1, recompute="full")
    cost = estimate(settings, device="cuda")
    with pytest.raises(ResourceError) as problem:
        require_memory(settings, cost, 80 * 10**9, device="cuda", where="an A100")
    assert "ranks with this much each (about" in (problem.value.hint or "")
    with pytest.raises(ResourceError) as problem:
        require_memory(settings, cost, 10**6, device="cuda", where="a watch")
    assert "smaller model" in (problem.value.hint or "")
