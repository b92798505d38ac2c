"""AdamW against the formulas written out, and its state as tensors a checkpoint can hold."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from criadero.errors import CheckpointError
from criadero.train.config import OptimizerConfig
from criadero.train.optimizer import (
    make_optimizer,
    optimizer_steps,
    optimizer_tensors,
    set_learning_rate,
    set_optimizer_steps,
)
from toy import batch, loss_of, toy

CONFIG = OptimizerConfig(learning_rate=0.01, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1)


class NaiveAdamW:
    """Loshchilov and Hutter's algorithm 2, float64, with decay on matrices only."""

    def __init__(self, model: nn.Module) -> None:
        self.weights = {name: p.detach().double() for name, p in model.named_parameters()}
        self.m = {name: torch.zeros_like(w) for name, w in self.weights.items()}
        self.v = {name: torch.zeros_like(w) for name, w in self.weights.items()}
        self.t = 0

    def step(self, gradients: dict[str, Tensor], rate: float) -> None:
        self.t += 1
        for name, gradient in gradients.items():
            g, w = gradient.double(), self.weights[name]
            self.m[name] = 0.9 * self.m[name] + 0.1 * g
            self.v[name] = 0.95 * self.v[name] + 0.05 * g * g
            m_hat = self.m[name] / (1 - 0.9**self.t)
            v_hat = self.v[name] / (1 - 0.95**self.t)
            decay = 0.1 if w.ndim >= 2 else 0.0
            self.weights[name] = w - rate * decay * w - rate * m_hat / (v_hat.sqrt() + 1e-8)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    model.zero_grad()
    tokens_BT, targets_BT = batch()
    loss_of(model, tokens_BT, targets_BT, valid=27).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def test_steps_equal_a_naive_adamw_that_decays_matrices_only():
    model = toy()
    optimizer, naive = make_optimizer(model, CONFIG), NaiveAdamW(model)
    for rate in (0.01, 0.02, 0.005, 0.01):
        naive.step(gradients(model), rate)
        set_learning_rate(optimizer, rate)
        optimizer.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach().double(), naive.weights[name], rtol=2e-6, atol=2e-7)
    state = optimizer_tensors(model, optimizer)
    for name in naive.weights:
        m, v = state[f"optimizer.{name}.exp_avg"], state[f"optimizer.{name}.exp_avg_sq"]
        torch.testing.assert_close(m.double(), naive.m[name], rtol=1e-5, atol=1e-8)
        torch.testing.assert_close(v.double(), naive.v[name], rtol=1e-5, atol=1e-8)


def test_a_gain_without_gradient_stays_where_it_is_and_a_matrix_shrinks():
    model = toy()
    optimizer = make_optimizer(model, CONFIG)
    scale, matrix = model.scale.detach().clone(), model.output.weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.equal(model.scale, scale)
    torch.testing.assert_close(model.output.weight.detach(), matrix * (1 - 0.01 * 0.1))


def test_every_parameter_has_two_named_float32_moments_before_the_first_step():
    model = toy()
    state = optimizer_tensors(model, make_optimizer(model, CONFIG))
    names = [name for name, _ in model.named_parameters()]
    assert set(state) == {f"optimizer.{n}.{m}" for n in names for m in ("exp_avg", "exp_avg_sq")}
    for name, parameter in model.named_parameters():
        moment = state[f"optimizer.{name}.exp_avg"]
        assert moment.shape == parameter.shape
        assert moment.dtype == torch.float32
        assert not moment.any()


def test_moments_made_before_the_first_step_do_not_change_it():
    plain, prepared = toy(), toy()
    optimizers = [make_optimizer(model, CONFIG) for model in (plain, prepared)]
    optimizer_tensors(prepared, optimizers[1])
    for model, optimizer in zip((plain, prepared), optimizers, strict=True):
        gradients(model)
        optimizer.step()
    for one, other in zip(plain.parameters(), prepared.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_state_carried_to_another_optimizer_goes_on_bit_by_bit():
    model, twin = toy(), toy()
    optimizer, other = make_optimizer(model, CONFIG), make_optimizer(twin, CONFIG)
    for _ in range(3):
        gradients(model)
        optimizer.step()
    with torch.no_grad():
        for target, source in zip(twin.parameters(), model.parameters(), strict=True):
            target.copy_(source)
        saved = optimizer_tensors(model, optimizer)
        for name, tensor in optimizer_tensors(twin, other).items():
            tensor.copy_(saved[name])
    set_optimizer_steps(other, optimizer_steps(optimizer))
    assert optimizer_steps(other) == 3
    for some_model, some_optimizer in ((model, optimizer), (twin, other)):
        gradients(some_model)
        some_optimizer.step()
    for one, two in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, two)


def test_an_optimizer_that_has_done_nothing_has_taken_no_step():
    assert optimizer_steps(make_optimizer(toy(), CONFIG)) == 0


def test_parameters_updated_a_different_number_of_times_are_an_error():
    model = toy()
    optimizer = make_optimizer(model, CONFIG)
    gradients(model)
    optimizer.step()
    optimizer.state[model.scale]["step"].fill_(7)
    with pytest.raises(CheckpointError, match=r"\[1, 7\]"):
        optimizer_steps(optimizer)
