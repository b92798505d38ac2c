"""Attention of its own for training on the CPU: the plain formula, its gradients, nothing of T x T kept."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from criadero.model.attention import Attention
from criadero.model.causal_attention import causal_attention, suits
from criadero.model.config import ModelConfig
from criadero.model.rope import rope_tables
from naive_llama import naive_attention


def naive(q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor) -> Tensor:
    num_rows, num_tokens, num_heads, _ = q_BTHE.shape
    group = num_heads // k_BTKE.shape[2]
    mask_TT = torch.ones(num_tokens, num_tokens, dtype=torch.bool).tril()
    rows = [
        [
            naive_attention(
                q_BTHE[b, :, h], k_BTKE[b, :, h // group], v_BTKE[b, :, h // group], mask_TS=mask_TT
            )
            for h in range(num_heads)
        ]
        for b in range(num_rows)
    ]
    return torch.stack([torch.stack(heads, dim=1) for heads in rows])


def gradients(attend, grad: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    return torch.autograd.grad(attend(*leaves), leaves, grad)


def random_inputs(shape: tuple[int, ...], num_kv_heads: int, *, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    of_keys = (*shape[:2], num_kv_heads, shape[3])
    return [torch.randn(s, generator=generator).to(dtype) for s in (shape, shape, of_keys, of_keys)]


# One block; a last block of 3 tokens; more sequences and heads than are worked on at once.
@pytest.mark.parametrize(
    ("shape", "num_kv_heads"),
    [((2, 5, 6, 4), 3), ((2, 131, 6, 6), 2), ((3, 300, 4, 8), 4), ((1, 7, 4, 2), 1)],
)
def test_values_and_gradients_are_those_of_the_plain_formula(shape: tuple[int, ...], num_kv_heads: int):
    grad, q, k, v = random_inputs(shape, num_kv_heads, dtype=torch.float64)
    torch.testing.assert_close(causal_attention(q, k, v), naive(q, k, v))
    expected = gradients(naive, grad, q, k, v)
    for ours, theirs in zip(gradients(causal_attention, grad, q, k, v), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_gradients_in_bfloat16_are_off_by_its_rounding_only():
    grad, q, k, v = random_inputs((2, 131, 4, 16), 2, dtype=torch.bfloat16)
    exact = gradients(naive, grad.double(), q.double(), k.double(), v.double())
    for ours, theirs in zip(gradients(causal_attention, grad, q, k, v), exact, strict=True):
        assert (ours.double() - theirs).norm() < 1.5 * 2**-8 * theirs.norm()


def test_the_forward_pass_keeps_its_inputs_and_nothing_of_the_scores():
    _, q, k, v = random_inputs((1, 64, 2, 4), 2, dtype=torch.bfloat16)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        causal_attention(*(x.requires_grad_() for x in (q, k, v)))
    assert {x.data_ptr() for x in kept} == {x.data_ptr() for x in (q, k, v)}


def test_the_compiler_sees_one_operator_with_right_shapes_and_gradients():
    inputs = [x.requires_grad_() for x in random_inputs((2, 5, 6, 4), 3, dtype=torch.float64)[1:]]
    torch.library.opcheck(torch.ops.criadero.causal_attention.default, inputs)


def test_it_is_taken_for_training_in_bfloat16_without_a_mask_only():
    q = torch.zeros(1, 5, 2, 4, dtype=torch.bfloat16)
    assert suits(q.clone().requires_grad_())
    assert not suits(q)
    assert not suits(q.float().requires_grad_())
    assert not suits(q.new_zeros(1, 4096, 2, 4).requires_grad_())
    with torch.no_grad():
        assert not suits(q.clone().requires_grad_())


def test_a_layer_that_trains_gives_the_output_of_one_that_does_not():
    torch.manual_seed(8)
    config = ModelConfig(dim=8, num_layers=1, num_heads=4, num_kv_heads=2, head_dim=2)
    layer, x_BTD = Attention(config, layer_index=0).bfloat16(), torch.randn(2, 5, 8).bfloat16()
    tables = rope_tables(torch.arange(5).unsqueeze(0), config)
    with torch.no_grad():
        expected = layer(x_BTD, tables)
    trained = layer(x_BTD, tables)
    assert trained.requires_grad
    assert torch.equal(trained, expected)
