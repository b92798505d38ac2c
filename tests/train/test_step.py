"""One optimizer step: how a batch is cut does not matter, clipping is global, bad numbers change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from criadero.errors import NumericsError
from criadero.model.init import initialize
from criadero.model.transformer import Transformer
from criadero.parallel.mesh import Mesh
from criadero.parallel.parallelize import parallelize
from criadero.shards.batch import IGNORED, Batch, Row, collate
from criadero.train.config import RunConfig
from criadero.train.state import TrainState
from criadero.train.step import StepResult, train_step
from train.one_rank import one_rank

T, V = 11, 37
# Rows of very different length, so that micro-batches have 1 to 21 valid targets.
LENGTHS = (11, 10, 1, 3, 11, 2, 7, 4)


class Recorder(torch.optim.SGD):
    """Keeps the gradients it was given; a rate of zero leaves the weights alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model.parameters(), lr=0.0)
        self.gradients: list[Tensor] = []

    def step(self, closure=None) -> None:
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        self.gradients = [grad.full_tensor().clone() for grad in grads]


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with one_rank() as mesh:
        yield mesh


def config(**train) -> RunConfig:
    return RunConfig.model_validate(
        {
            "run": {"folder": "runs/x"},
            "model": {
                "vocab_size": V,
                "dim": 12,
                "num_layers": 2,
                "num_heads": 3,
                "hidden_dim": 20,
                "max_seq_len": 16,
            },
            "data": {"sources": [{"name": "a", "path": "a"}], "seq_len": T},
            "train": {
                "tokens": 8000 * T,
                "batch_tokens": 8 * T,
                "compute_dtype": "float32",
                "loss_chunk_tokens": 7,
                **train,
            },
            "optimizer": {"clip_norm": 1e9},
        }
    )


def plain_model(settings: RunConfig) -> Transformer:
    model = Transformer(settings.model)
    initialize(model, 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 5  # away from the flat start
    return model


def rows() -> list[Row]:
    chance = np.random.default_rng(2)
    return [
        Row(number, chance.integers(V, size=length), chance.integers(V, size=length))
        for number, length in enumerate(LENGTHS)
    ]


def micro_batches(size: int) -> list[Batch]:
    whole = rows()
    return [
        collate(whole[start : start + size], T, mask_documents=False) for start in range(0, len(whole), size)
    ]


def reference(settings: RunConfig) -> tuple[float, list[Tensor]]:
    """Mean loss over all valid targets and its gradients, by torch's cross_entropy on the plain model."""
    model = plain_model(settings)
    (batch,) = micro_batches(len(LENGTHS))
    logits_NV = model(batch.tokens_BT).float().flatten(0, 1)
    loss = F.cross_entropy(logits_NV, batch.targets_BT.flatten(), ignore_index=IGNORED)
    loss.backward()
    return loss.item(), [p.grad for p in model.parameters()]


def run_step(mesh: Mesh, settings: RunConfig, batches: list[Batch], **options) -> tuple[StepResult, Recorder]:
    model = options.pop("model", None) or sharded_model(mesh, settings)
    optimizer = options.pop("optimizer", None) or Recorder(model)
    values = {"state": TrainState(), "learning_rate": 0.0, "stop_requested": False, **options}
    return train_step(model, optimizer, batches, mesh=mesh, config=settings, **values), optimizer


def sharded_model(mesh: Mesh, settings: RunConfig) -> Transformer:
    model = plain_model(settings)
    parallelize(model, mesh, param_dtype=torch.float32)
    return model


@pytest.mark.parametrize("size", [8, 4, 3, 1])
def test_loss_and_gradients_do_not_depend_on_the_micro_batches(mesh: Mesh, size: int):
    settings = config()
    result, optimizer = run_step(mesh, settings, micro_batches(size))
    loss, gradients = reference(settings)
    assert result.tokens == sum(LENGTHS)
    assert result.loss == pytest.approx(loss, rel=1e-6)
    for found, expected in zip(optimizer.gradients, gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_one_batch_of_eight_and_eight_of_one_give_the_same_gradients(mesh: Mesh):
    _, whole = run_step(mesh, config(), micro_batches(8))
    _, cut = run_step(mesh, config(), micro_batches(1))
    for one, other in zip(whole.gradients, cut.gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_the_global_norm_is_reported_before_clipping_and_clipped_to_the_limit(mesh: Mesh):
    settings = config()
    _, gradients = reference(settings)
    norm = torch.cat([g.flatten() for g in gradients]).double().norm().item()
    assert norm > 0.2
    clip = settings.optimizer.model_copy(update={"clip_norm": 0.1})
    result, optimizer = run_step(mesh, settings.model_copy(update={"optimizer": clip}), micro_batches(2))
    assert result.gradient_norm == pytest.approx(norm, rel=1e-5)
    for found, expected in zip(optimizer.gradients, gradients, strict=True):
        torch.testing.assert_close(found, expected * (0.1 / norm), rtol=1e-4, atol=1e-6)


def test_gradients_below_the_limit_are_left_as_they_are(mesh: Mesh):
    _, gradients = reference(config())
    _, optimizer = run_step(mesh, config(), micro_batches(8))
    for found, expected in zip(optimizer.gradients, gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_rate_is_set_and_the_gradients_are_gone_afterwards(mesh: Mesh):
    settings = config()
    model = sharded_model(mesh, settings)
    before = [p.full_tensor().clone() for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=7.0)
    run_step(mesh, settings, micro_batches(4), model=model, optimizer=optimizer, learning_rate=0.5)
    _, gradients = reference(settings)
    for parameter, old, gradient in zip(model.parameters(), before, gradients, strict=True):
        assert parameter.grad is None
        torch.testing.assert_close(parameter.full_tensor(), old - 0.5 * gradient, rtol=1e-5, atol=1e-6)


def poisoned(mesh: Mesh, settings: RunConfig) -> tuple[Transformer, torch.optim.AdamW]:
    model = sharded_model(mesh, settings)
    with torch.no_grad():
        model.norm.weight.to_local()[0] = float("nan")
    return model, torch.optim.AdamW(model.parameters(), lr=0.1)


def test_a_step_that_is_not_finite_stops_naming_samples_and_changes_nothing(mesh: Mesh, tmp_path: Path):
    settings = config()
    model, optimizer = poisoned(mesh, settings)
    before = [p.full_tensor().clone() for p in model.parameters()]
    with pytest.raises(NumericsError) as problem:
        run_step(
            mesh,
            settings,
            micro_batches(8),
            model=model,
            optimizer=optimizer,
            state=TrainState(step=41, next_sample=328),
        )
    assert "step 42" in problem.value.message
    assert "samples 328 to 335" in problem.value.message
    assert "not finite on rank 0" in problem.value.message
    assert "train.on_nonfinite=skip" in problem.value.hint
    assert "--step 42" in problem.value.hint
    for parameter, old in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.full_tensor(), old, rtol=0, atol=0, equal_nan=True)


def test_a_step_may_be_skipped_within_the_budget_and_then_no_more(mesh: Mesh):
    settings = config(on_nonfinite="skip", skip_budget=2)
    model, optimizer = poisoned(mesh, settings)
    before = [p.full_tensor().clone() for p in model.parameters()]
    result, _ = run_step(
        mesh,
        settings,
        micro_batches(8),
        model=model,
        optimizer=optimizer,
        state=TrainState(skipped_steps=1),
    )
    assert result.skipped
    assert not result.spike
    assert not optimizer.state
    for parameter, old in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.full_tensor(), old, rtol=0, atol=0, equal_nan=True)
        assert parameter.grad is None
    with pytest.raises(NumericsError, match="2 steps were skipped before"):
        run_step(
            mesh,
            settings,
            micro_batches(8),
            model=model,
            optimizer=optimizer,
            state=TrainState(skipped_steps=2),
        )


@pytest.mark.parametrize(("policy", "skipped"), [("report", False), ("skip", True)])
def test_a_spike_is_reported_or_skipped(mesh: Mesh, policy: str, skipped: bool):
    calm = TrainState(recent_norms=(1e-6,) * 30)
    result, optimizer = run_step(mesh, config(on_spike=policy), micro_batches(8), state=calm)
    assert result.spike
    assert result.skipped is skipped
    assert (optimizer.gradients == []) is skipped


def test_a_wish_to_stop_does_not_keep_the_step_from_being_taken(mesh: Mesh):
    result, optimizer = run_step(mesh, config(), micro_batches(8), stop_requested=True)
    assert result.stop
    assert optimizer.gradients
    assert not run_step(mesh, config(), micro_batches(8))[0].stop
