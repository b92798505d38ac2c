"""Layers that take the same input, differentiated together, are what they are one by one."""

from __future__ import annotations

import torch
from torch import nn

from criadero.model.layout import WHOLE


def layers_and_input() -> tuple[list[nn.Linear], torch.Tensor]:
    torch.manual_seed(9)
    layers = [nn.Linear(7, width, bias=False).double() for width in (6, 3, 4)]
    return layers, torch.randn(2, 5, 7, dtype=torch.float64, requires_grad=True)


def test_layers_of_one_input_give_the_outputs_and_gradients_of_each_alone():
    layers, x_BTD = layers_and_input()
    together, alone = WHOLE.columns(x_BTD, layers), [layer(x_BTD) for layer in layers]
    leaves = [x_BTD, *(layer.weight for layer in layers)]
    grads = [torch.randn_like(y) for y in alone]
    for ours, theirs in zip(together, alone, strict=True):
        assert torch.equal(ours, theirs)
    expected = torch.autograd.grad(alone, leaves, grads)
    for ours, theirs in zip(torch.autograd.grad(together, leaves, grads), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_an_output_that_is_not_used_counts_as_zeros():
    layers, x_BTD = layers_and_input()
    first, *_ = WHOLE.columns(x_BTD, layers)
    grads = torch.autograd.grad(first.sum(), [x_BTD, layers[0].weight, layers[1].weight])
    expected = torch.autograd.grad(layers[0](x_BTD).sum(), [x_BTD, layers[0].weight])
    for ours, theirs in zip(grads, (*expected, torch.zeros_like(layers[1].weight)), strict=True):
        torch.testing.assert_close(ours, theirs)
