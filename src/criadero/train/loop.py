"""Pretraining, from a config to a model folder (LLaMA 2.3 and 2.4).

Entry point: `train`, the same for one process and for thousands. The walk: open the session (session.py),
take steps (step.py) until the budget is spent, saving, scoring held-out text and logging on the way; then
write the model folder. Run again after any end, it goes on from the newest good checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch.profiler import record_function

from criadero.errors import StoppedEarly
from criadero.parallel.launch import Launch, distributed
from criadero.parallel.mesh import build_mesh
from criadero.parallel.watchdog import set_phase
from criadero.runs import HANG_REPORT
from criadero.train.build import choose_device
from criadero.train.config import RunConfig
from criadero.train.export import write_model
from criadero.train.heldout import as_metrics, open_heldout, score_heldout
from criadero.train.hooks import Hook
from criadero.train.profile import profiled, waited_for
from criadero.train.resume import read_finished
from criadero.train.schedule import learning_rate
from criadero.train.session import Session, open_session, require_same_settings
from criadero.train.speed import peak_memory_bytes
from criadero.train.state import TrainState
from criadero.train.step import StepResult, train_step
from criadero.train.stop import StopFlag
from criadero.train.timeline import Mark

logger = logging.getLogger("criadero")


@dataclass(frozen=True)
class TrainResult:
    """How a run ended: its state, the last held-out scores, and where the model is."""

    state: TrainState
    heldout: dict[str, float]
    joules: float
    model: Path


def train(
    config: RunConfig,
    *,
    launch: Launch | None = None,
    stop: StopFlag | None = None,
    hooks: Sequence[Hook] = (),
    verify: bool = True,
) -> TrainResult:
    """Train, or go on training, the run that `config` describes.

    Args:
        launch: this process among the run's processes; None for a single one.
        stop: raised to ask for an orderly end.
        hooks: called around each step.
        verify: hash a checkpoint before resuming from it.

    Raises:
        StoppedEarly: `stop` was raised; everything is saved.
        CriaderoError: see errors.py; before the first step for everything that can be checked then.
    """
    launch, stop = launch or Launch(), stop or StopFlag()
    device = choose_device(config.train.device)
    report = config.run.folder / HANG_REPORT
    timeout_seconds = config.train.timeout_seconds
    with distributed(launch, device, timeout_seconds=timeout_seconds, hang_report=report) as own_device:
        return _train_inside(config, own_device, launch, stop=stop, hooks=hooks, verify=verify)


def _train_inside(
    config: RunConfig,
    device: torch.device,
    launch: Launch,
    *,
    stop: StopFlag,
    hooks: Sequence[Hook],
    verify: bool,
) -> TrainResult:
    """All that refers to the process group lives and dies in here, before the group does."""
    require_same_settings(config)
    done = read_finished(config, verify=verify)
    if done is not None:
        if launch.rank == 0:
            logger.info("the run is finished: a larger train.tokens would go on with it")
        return TrainResult(done.state, done.heldout, done.joules, config.run.folder / "model")
    mesh = build_mesh(config.parallel, device, timeout_seconds=config.train.timeout_seconds)
    with open_session(config, mesh, launch, stop=stop, hooks=hooks, verify=verify) as session:
        with profiled(session):
            _run_steps(session)
        return _finish(session)


def _run_steps(session: Session) -> None:
    config, mesh = session.config, session.mesh
    if session.state.step >= config.total_steps:
        return
    steps = session.batches.iterate(
        session.state.next_sample,
        global_count=config.batch_sequences,
        rank=mesh.dp_rank,
        world_size=mesh.dp_size,
        micro_count=config.train.micro_batch_sequences,
    )
    set_phase("data")
    with steps:
        for micro_batches, next_sample in waited_for(steps):
            for hook in session.hooks:
                hook.before_step(session.model, session.state)
            rate = _learning_rate(config, session.state.step)
            result = train_step(
                session.model,
                session.optimizer,
                micro_batches,
                mesh=mesh,
                config=config,
                state=session.state,
                learning_rate=rate,
                stop_requested=session.stop.requested,
            )
            session.state = session.state.after_step(
                tokens=result.tokens,
                next_sample=next_sample,
                gradient_norm=result.gradient_norm,
                skipped=result.skipped,
                spike=result.spike,
            )
            _log_step(session, result, rate)
            with record_function(Mark.PAUSE):
                rolled_back = _roll_back_if_due(session, result)
                if session.state.step >= config.total_steps:
                    return
                if not rolled_back:
                    _save_and_score_when_due(session)
            if result.stop:
                _stop(session)
            set_phase("data")


def _learning_rate(config: RunConfig, step: int) -> float:
    return learning_rate(
        step,
        maximum=config.optimizer.learning_rate,
        total_steps=config.total_steps,
        schedule=config.schedule,
    )


def _log_step(session: Session, result: StepResult, rate: float) -> None:
    """Write the step's numbers; those of a resumed run equal the uncut run's up to `skipped`."""
    state = session.state
    speed = session.speedometer.step(result.tokens)
    left = session.config.total_steps - state.step
    metrics: dict[str, Any] = {
        "loss": result.loss,
        "learning_rate": rate,
        "gradient_norm": result.gradient_norm,
        "tokens": state.tokens,
        "skipped": result.skipped,
        "spike": result.spike,
        **speed,
        "eta_seconds": left * session.speedometer.seconds_per_step,
        "memory_bytes": peak_memory_bytes(session.mesh.device),
        "joules": session.update_ledger(),
    }
    session.record(metrics)
    _warn(session, result)
    for hook in session.hooks:
        hook.after_step(state, metrics, total_steps=session.config.total_steps)


def _warn(session: Session, result: StepResult) -> None:
    """Say on rank 0 what was wrong with a step's numbers, and how often it has been; keep it as an event."""
    if session.run is None or not (result.skipped or result.spike):
        return
    session.write_event(
        "skipped" if result.skipped else "spike",
        loss=result.loss,
        gradient_norm=result.gradient_norm,
        first_sample=session.state.next_sample - session.config.batch_sequences,
        next_sample=session.state.next_sample,
    )
    what = "the gradient norm is a spike" if result.spike else "loss or gradient is not finite"
    logger.warning(
        "step %d: %s (loss %.4g, gradient norm %.4g)%s; spikes so far: %d, skipped steps: %d",
        session.state.step,
        what,
        result.loss,
        result.gradient_norm,
        ", no parameter was changed" if result.skipped else "",
        session.state.spikes,
        session.state.skipped_steps,
    )


def _roll_back_if_due(session: Session, result: StepResult) -> bool:
    """Return whether the run is at an earlier step now; the samples that come next do not change by that."""
    return result.spike and session.config.train.on_spike == "rollback" and session.roll_back()


def _save_and_score_when_due(session: Session) -> None:
    """Save first: scoring may run out of memory, and what is saved is safe."""
    step = session.state.step
    if step % session.config.checkpoint.every_steps == 0:
        session.save()
    every = session.config.heldout.every_steps
    if every and step % every == 0:
        _score(session, max_tokens=session.config.heldout.tokens)


def _score(session: Session, *, max_tokens: int | None) -> dict[str, float]:
    """Score held-out text and record it; empty without such text.

    Raises:
        StoppedEarly: some rank was asked to stop meanwhile.
    """
    config = session.config
    scores = score_heldout(
        session.model,
        open_heldout(config.data, max_tokens=max_tokens),
        mesh=session.mesh,
        batch_sequences=config.train.micro_batch_sequences,
        chunk_tokens=config.train.loss_chunk_tokens,
        stop_requested=lambda: session.stop.requested,
    )
    session.speedometer.exclude_pause()
    if scores is None:
        _stop(session)
    if not scores:
        return {}
    metrics = as_metrics(scores)
    session.record(metrics)
    if session.run is not None:
        logger.info("held-out text: %.3f bits per byte", metrics["heldout_bits_per_byte"])
    return metrics


def _stop(session: Session) -> NoReturn:
    session.save()
    session.checkpointer.wait_for(session.state.step)
    raise StoppedEarly(
        f"stopped at step {session.state.step} of {session.config.total_steps}, everything is saved",
        hint="run the same command again to go on",
    )


def _finish(session: Session) -> TrainResult:
    """Save, then write the model folder, then score all held-out text."""
    session.save()
    session.checkpointer.wait_for(session.state.step)
    set_phase("writing the model")
    model = write_model(session)
    heldout = _score(session, max_tokens=None)
    return TrainResult(session.state, heldout, session.update_ledger(), model)
