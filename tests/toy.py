"""A model of a few hundred parameters with `layers`, its batch and its loss, for tests of sharding."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

VOCABULARY, WIDTH = 11, 5  # first dimensions that divide by no number of ranks


class Toy(nn.Module):
    """Embedding, two blocks, output: first dimensions 11, 5 and 1 cut unevenly, or smaller than the ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, 7), nn.SiLU(), nn.Linear(7, WIDTH, bias=False)) for _ in range(2)
        )
        self.scale = nn.Parameter(torch.ones(1))
        self.output = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        hidden_BTD = self.embedding(tokens_BT)
        for layer in self.layers:
            hidden_BTD = hidden_BTD + layer(hidden_BTD) * self.scale
        return self.output(hidden_BTD)


def toy() -> Toy:
    torch.manual_seed(3)
    return Toy()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Six sequences of seven tokens; rows have 7, 6, ... 2 valid targets, so ranks get uneven counts."""
    generator = torch.Generator().manual_seed(5)
    tokens_BT = torch.randint(VOCABULARY, (6, 8), generator=generator)
    targets_BT = tokens_BT[:, 1:].clone()
    for row in range(6):
        targets_BT[row, 7 - row :] = -1
    return tokens_BT[:, :-1], targets_BT


def loss_of(model: nn.Module, tokens_BT: torch.Tensor, targets_BT: torch.Tensor, *, valid: int):
    logits = model(tokens_BT).float()
    return (
        F.cross_entropy(logits.flatten(0, 1), targets_BT.flatten(), ignore_index=-1, reduction="sum") / valid
    )
