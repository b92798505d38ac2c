"""AdamW with float32 states, and its state as named tensors that a checkpoint can hold (LLaMA 2.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from criadero.errors import CheckpointError
from criadero.train.config import OptimizerConfig

_MOMENTS = ("exp_avg", "exp_avg_sq")


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """Return AdamW over the model's parameters: matrices are decayed, gains are not."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return both moments of every parameter as `optimizer.NAME.exp_avg` and `...exp_avg_sq`.

    Moments that do not exist yet are created as zeros, so that a checkpoint can be read into them.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        state = optimizer.state[parameter]
        if not state:
            device = parameter.device
            state["step"] = torch.zeros((), dtype=torch.float32, device=device)
            for moment in _MOMENTS:
                state[moment] = torch.zeros_like(parameter)
        for moment in _MOMENTS:
            tensors[f"optimizer.{name}.{moment}"] = state[moment]
    return tensors


def optimizer_steps(optimizer: torch.optim.Optimizer) -> int:
    """Return how many updates the optimizer has made; the same for every parameter."""
    steps = {int(state["step"]) for state in optimizer.state.values()}
    if len(steps) > 1:
        raise CheckpointError(f"parameters have been updated a different number of times: {sorted(steps)}")
    return steps.pop() if steps else 0


def set_optimizer_steps(optimizer: torch.optim.Optimizer, steps: int) -> None:
    """Restore the update count that AdamW's bias correction depends on."""
    for state in optimizer.state.values():
        state["step"].fill_(steps)
