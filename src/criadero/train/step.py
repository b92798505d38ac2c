"""One optimizer step: forward and backward over micro-batches, global norm, clip, update (LLaMA 2.3).

Entry point: `train_step`. The loss is the sum over tokens divided by the valid tokens of the whole global
batch, so the gradient does not depend on how the batch is cut into micro-batches or spread over ranks.
A step whose loss or gradient norm is not finite on any rank changes no parameter on any rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.profiler import record_function

from criadero.errors import DataError, NumericsError
from criadero.parallel.collectives import clip_gradients, gather, sum_over_batch, sum_over_ranks
from criadero.parallel.mesh import Mesh
from criadero.parallel.parallelize import no_sync
from criadero.parallel.watchdog import set_phase
from criadero.shards.batch import Batch, document_mask_BTT
from criadero.train.config import RunConfig
from criadero.train.loss import ChunkedCrossEntropy
from criadero.train.optimizer import set_learning_rate
from criadero.train.state import TrainState
from criadero.train.timeline import Mark


@dataclass(frozen=True)
class StepResult:
    """What one step did; the same on all ranks.

    Attributes:
        loss: mean cross-entropy over the global batch, nats per token.
        gradient_norm: global norm before clipping.
        tokens: valid targets in the global batch.
        skipped: no parameter was changed.
        spike: the norm was far above the recent ones.
        stop: some rank was asked to stop.
    """

    loss: float
    gradient_norm: float
    tokens: int
    skipped: bool
    spike: bool
    stop: bool


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    micro_batches: Sequence[Batch],
    *,
    mesh: Mesh,
    config: RunConfig,
    state: TrainState,
    learning_rate: float,
    stop_requested: bool,
) -> StepResult:
    """Run one step.

    Raises:
        NumericsError: loss or gradient norm is not finite and the policy is to stop, or the budget of
            skipped steps is used up; no parameter has changed.
        DataError: every sequence of the step was left out as damaged.
    """
    set_phase("forward and backward")
    tokens = sum_over_batch(sum(batch.num_targets for batch in micro_batches), mesh)
    if tokens == 0:
        raise DataError(
            f"step {state.step + 1} has no sequence that can be used",
            hint="the shards are damaged: restore them or build them again",
        )
    loss_sum = _accumulate(model, micro_batches, mesh=mesh, config=config, tokens=tokens)
    totals = sum_over_ranks(torch.stack([loss_sum, loss_sum.new_tensor(float(stop_requested))]), mesh)
    set_phase("optimizer")
    with record_function(Mark.CLIP):
        gradient_norm = clip_gradients(model.parameters(), config.optimizer.clip_norm, mesh=mesh)
    # Ranks that share a product have the same loss; all are added up, so that no rank's NaN is overlooked.
    loss = float(totals[0]) / mesh.tensor_parallel.size() / tokens
    finite = math.isfinite(loss) and math.isfinite(gradient_norm)
    spike = finite and state.is_spike(gradient_norm, config.train.spike_factor)
    skipped = not finite or (spike and config.train.on_spike != "report")
    if skipped:
        _require_skip_allowed(config, state, loss, gradient_norm, _find_not_finite(model, loss_sum))
    else:
        set_learning_rate(optimizer, learning_rate)
        with record_function(Mark.OPTIMIZER):
            optimizer.step()
    optimizer.zero_grad()
    return StepResult(loss, gradient_norm, tokens, skipped, spike, stop=float(totals[1]) > 0)


def summed_loss(model: nn.Module, batch: Batch, *, mesh: Mesh, chunk_tokens: int) -> Tensor:
    """Run the model on one batch and return the loss summed over its targets, float32 scalar, nats."""
    device, positions_BT, document_BT = mesh.device, batch.positions_BT, batch.document_BT
    targets_BT = batch.targets_BT.to(device)
    loss: Tensor = model(
        batch.tokens_BT.to(device),
        positions_BT=None if positions_BT is None else positions_BT.to(device),
        mask_BTT=None if document_BT is None else document_mask_BTT(document_BT.to(device)),
        head=ChunkedCrossEntropy(targets_BT, chunk_tokens=chunk_tokens, ranks=mesh.sharing_products),
    )
    return loss


def _accumulate(
    model: nn.Module, micro_batches: Sequence[Batch], *, mesh: Mesh, config: RunConfig, tokens: int
) -> Tensor:
    """Forward and backward over this rank's micro-batches; gradients meet other ranks' at the last one."""
    loss_sum = torch.zeros((), dtype=torch.float32, device=mesh.device)
    for index, batch in enumerate(micro_batches):
        set_phase("forward and backward")  # again, as a sign of life
        last = index == len(micro_batches) - 1
        with nullcontext() if last else no_sync(model):
            with record_function(Mark.FORWARD):
                loss = summed_loss(model, batch, mesh=mesh, chunk_tokens=config.train.loss_chunk_tokens)
            with record_function(Mark.BACKWARD):
                (loss / tokens).backward()
            loss_sum += loss.detach()
    return loss_sum


def _find_not_finite(model: nn.Module, loss_sum: Tensor) -> str:
    """Return where numbers are not finite, by rank: in losses, or in gradients of parameters; collective.

    Gradients are sums over ranks by now: the rank is the one that holds that part of the parameter.
    """
    gradients = ((name, parameter.grad) for name, parameter in model.named_parameters())
    broken = (name for name, grad in gradients if grad is not None and not _is_finite(grad))
    found = gather((_is_finite(loss_sum), next(broken, None)), dist.group.WORLD)
    losses = [str(rank) for rank, (finite, _) in enumerate(found) if not finite]
    if losses:
        return f", loss not finite on rank {', '.join(losses)}"
    places = [f"`{name}` on rank {rank}" for rank, (_, name) in enumerate(found) if name is not None]
    return f", gradient not finite in {', '.join(places)}" if places else ""


def _is_finite(tensor: Tensor) -> bool:
    local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return bool(local.isfinite().all())


def _require_skip_allowed(
    config: RunConfig, state: TrainState, loss: float, gradient_norm: float, not_finite: str
) -> None:
    """Apply the policy for a step whose update is left out; all ranks reach the same verdict."""
    last_sample = state.next_sample + config.batch_sequences - 1
    place = (
        f"step {state.step + 1}: loss {loss}, gradient norm {gradient_norm}"
        f"{not_finite}, training samples {state.next_sample} to {last_sample}; no parameter was changed"
    )
    show = f"`criadero shards show --run {config.run.folder} --step {state.step + 1}` shows the text"
    if config.train.on_nonfinite == "stop" and not (math.isfinite(loss) and math.isfinite(gradient_norm)):
        raise NumericsError(place, hint=f"{show}; train.on_nonfinite=skip goes on without such steps")
    if state.skipped_steps >= config.train.skip_budget:
        raise NumericsError(f"{place}; {state.skipped_steps} steps were skipped before", hint=show)
