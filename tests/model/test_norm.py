"""RMSNorm is the paper's formula, computed in float32 whatever comes in."""

from __future__ import annotations

import pytest
import torch

from criadero.model.norm import RMSNorm
from naive_llama import naive_norm


def norm_with_weights(dim: int, *, eps: float, dtype: torch.dtype) -> RMSNorm:
    norm = RMSNorm(dim, eps=eps).to(dtype)
    torch.nn.init.uniform_(norm.weight, 0.5, 2.0, generator=torch.Generator().manual_seed(1))
    return norm


@pytest.mark.parametrize("eps", [1e-6, 1e-5, 0.5])
def test_norm_is_the_formula(eps: float):
    norm = norm_with_weights(9, eps=eps, dtype=torch.float32)
    x_BTD = torch.randn(2, 5, 9, generator=torch.Generator().manual_seed(2))
    expected = naive_norm(x_BTD.double(), norm.weight.double(), eps=eps)
    torch.testing.assert_close(norm(x_BTD).double(), expected, rtol=1e-6, atol=1e-6)


def test_norm_in_bfloat16_rounds_only_its_result():
    norm = norm_with_weights(64, eps=1e-6, dtype=torch.bfloat16)
    x_BTD = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(3)).bfloat16()
    exact = naive_norm(x_BTD.double(), norm.weight.double(), eps=1e-6)
    assert norm(x_BTD).dtype == torch.bfloat16
    half_a_unit_in_the_last_place = 2.0**-8
    torch.testing.assert_close(norm(x_BTD).double(), exact, rtol=1.01 * half_a_unit_in_the_last_place, atol=0)


def test_norm_of_large_float16_values_does_not_overflow():
    norm = RMSNorm(8, eps=1e-6).half()
    x_BTD = torch.full((1, 3, 8), 3e4, dtype=torch.float16)  # its square is beyond float16
    torch.testing.assert_close(norm(x_BTD), torch.ones_like(x_BTD), rtol=1e-3, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_gradients_are_those_of_the_formula(dtype: torch.dtype):
    norm = norm_with_weights(9, eps=0.1, dtype=dtype)
    generator = torch.Generator().manual_seed(4)
    x_BTD, grad_BTD = (torch.randn(2, 5, 9, generator=generator).to(dtype) for _ in range(2))
    x_BTD.requires_grad_()
    norm(x_BTD).backward(grad_BTD)
    exact_x, exact_weight = (t.detach().double().requires_grad_() for t in (x_BTD, norm.weight))
    naive_norm(exact_x, exact_weight, eps=0.1).backward(grad_BTD.double())
    rounding = torch.finfo(dtype).eps
    torch.testing.assert_close(x_BTD.grad.double(), exact_x.grad, rtol=rounding, atol=4 * rounding)
    torch.testing.assert_close(norm.weight.grad.double(), exact_weight.grad, rtol=rounding, atol=9 * rounding)


def test_training_and_inference_give_the_same_bits():
    norm = norm_with_weights(9, eps=1e-5, dtype=torch.bfloat16)
    x_BTD = torch.randn(2, 5, 9, generator=torch.Generator().manual_seed(5)).bfloat16()
    assert torch.equal(norm(x_BTD), norm(x_BTD.clone().requires_grad_()))
