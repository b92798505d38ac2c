"""The matrix products of one training step and nothing else: what the machine could reach at these shapes.

Every weight takes part in three, forward, the gradient of its input and its own gradient, in bfloat16, each
written as autograd writes it. In place of the number of parameters stands the number of operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F


@contextmanager
def training(shape: dict[str, Any]) -> Iterator[tuple[Callable[..., float], int]]:
    """Yield the products of one step, and their operations."""
    dim, hidden_dim, layers = shape["dim"], shape["hidden_dim"], shape["num_layers"]
    tokens = shape["batch"] * shape["seq_len"]
    # (outputs, inputs) of a weight -> how many of them there are
    weights = {
        (dim, dim): 4 * layers,
        (hidden_dim, dim): 2 * layers,
        (dim, hidden_dim): layers,
        (shape["vocab_size"], dim): 1,
    }
    operands = [
        (
            count,
            *(
                torch.randn(size).bfloat16()
                for size in ((tokens, inputs), (outputs, inputs), (tokens, outputs))
            ),
        )
        for (outputs, inputs), count in weights.items()
    ]

    def step(*_: torch.Tensor) -> float:
        for count, x, weight, grad in operands:
            for _ in range(count):
                F.linear(x, weight)
                grad @ weight
                grad.T @ x
        return 0.0

    yield step, sum(6 * tokens * outputs * inputs * count for (outputs, inputs), count in weights.items())
