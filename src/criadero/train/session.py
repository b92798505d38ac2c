"""One rank's training session: everything the loop works with, opened, resumed and closed.

Entry point: `open_session`. Rank 0 alone owns the run folder (lock, metrics, status, sinks); every rank
owns its shards of the model, its part of each checkpoint and its line in the energy ledger.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from criadero import config as configuration
from criadero.carbon.ledger import LedgerSegment, read_segments, total
from criadero.carbon.meter import EnergyMeter
from criadero.checkpoint.load import find_newest_good, load, read_state
from criadero.checkpoint.save import Checkpointer
from criadero.errors import StoppedEarly
from criadero.files import sha256_bytes
from criadero.model.transformer import Transformer
from criadero.notices import say_once
from criadero.parallel.collectives import any_rank, everywhere, gather, require_same, sum_over_ranks
from criadero.parallel.launch import Launch
from criadero.parallel.mesh import Mesh
from criadero.parallel.watchdog import set_phase
from criadero.runs import RunFolder
from criadero.shards.batches import Batches
from criadero.sinks import Sink, open_sinks
from criadero.train.build import build_model
from criadero.train.config import RunConfig
from criadero.train.estimate import require_resources
from criadero.train.free_memory import machine
from criadero.train.heldout import open_heldout
from criadero.train.hooks import Hook
from criadero.train.optimizer import make_optimizer, optimizer_steps, optimizer_tensors, set_optimizer_steps
from criadero.train.resume import require_same_data, require_same_run
from criadero.train.schedule import say_what_has_no_effect
from criadero.train.speed import Speedometer
from criadero.train.state import TrainState
from criadero.train.stop import StopFlag

logger = logging.getLogger("criadero")


@dataclass
class Session:
    """What the loop works with on one rank. `state` is replaced at each step, the rest stays.

    Attributes:
        run: the run folder on rank 0, None on the others.
        first_state: where this attempt began, moved by roll-backs so that the distance is the work done.
        earlier_joules: energy of earlier attempts at this run, of all ranks.
    """

    config: RunConfig
    mesh: Mesh
    run: RunFolder | None
    model: Transformer
    optimizer: torch.optim.AdamW
    batches: Batches
    checkpointer: Checkpointer
    speedometer: Speedometer
    ledger: LedgerSegment
    stop: StopFlag
    hooks: Sequence[Hook]
    sinks: Sequence[Sink] = ()
    state: TrainState = field(default_factory=TrainState)
    first_state: TrainState = field(default_factory=TrainState)
    earlier_joules: float = 0.0

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds: weights and both moments, this rank's shards."""
        weights = {f"model.{name}": p.detach() for name, p in self.model.named_parameters()}
        return {**weights, **optimizer_tensors(self.model, self.optimizer)}

    def save(self) -> None:
        """Write a checkpoint of the current state, unless this step has one."""
        set_phase("saving")
        if self.state.step == self.checkpointer.wait():
            return
        values = {
            "train": self.state.to_json(),
            "optimizer_steps": optimizer_steps(self.optimizer),
            "config": configuration.to_values(self.config),
            "data": self.batches.fingerprints,
        }
        self.checkpointer.save(
            self.state.step,
            self.tensors(),
            state=values,
            tokens=self.state.tokens,
            config_sha256=configuration_hash(self.config),
        )

    def resume(self, *, verify: bool) -> None:
        """Read the newest good checkpoint into model, optimizer and state; do nothing if there is none.

        Raises:
            CheckpointError: none is whole, or its settings differ in what must not.
            DataError: its data differs.
        """
        group = self.checkpointer.group
        path = find_newest_good(self.checkpointer.folder, verify=verify, on_skip=_say_skipped, group=group)
        if path is None:
            return
        saved = read_state(path, verify=False)
        require_same_run(saved["config"], configuration.to_values(self.config))
        require_same_data(saved["data"], self.batches.fingerprints)
        self._load(path, saved)
        state = TrainState.from_json(saved["train"])
        self.state = self.first_state = self._after_roll_back(state)
        logger.info("resuming from `%s`", path)

    def _after_roll_back(self, state: TrainState) -> TrainState:
        """Return the state of a checkpoint as a roll-back to it left it, if there was one; collective."""
        own = None if self.run is None else self.run.roll_back_to(state.step, rollbacks=state.rollbacks)
        event = gather(own, self.checkpointer.group)[0]
        return state if event is None else state.with_counters(event)

    def _load(self, path: Path, saved: Mapping[str, Any]) -> None:
        load(path, self.tensors(), verify=False, group=self.checkpointer.group)
        set_optimizer_steps(self.optimizer, saved["optimizer_steps"])
        self.checkpointer.last_saved_step = saved["train"]["step"]

    def roll_back(self) -> bool:
        """Go back to the newest good checkpoint, and on with the samples that come next now; collective.

        The event is on the disk before anything changes: a run that is killed from here on finds it when it
        resumes from that checkpoint, and so goes the same way.

        Returns:
            False, and nothing is changed, if there is no checkpoint.

        Raises:
            CheckpointError: there are checkpoints but none is whole.
        """
        set_phase("rolling back")
        self.checkpointer.wait()
        folder, group = self.checkpointer.folder, self.checkpointer.group
        path = find_newest_good(folder, at_most=self.state.step, on_skip=_say_skipped, group=group)
        if path is None:
            if self.run is not None:
                logger.warning("there is no checkpoint to go back to: the step was left out, no more")
            return False
        saved = read_state(path, verify=False)
        before, target = self.state, TrainState.from_json(saved["train"])
        counters = {**before.counters(), "rollbacks": before.rollbacks + 1}
        self.write_event("rollback", to_step=target.step, first_sample=target.next_sample, **counters)
        self._load(path, saved)
        self.state = target.with_counters(counters)
        # What was computed since stays counted: work of this attempt is the distance between both.
        self.first_state = replace(
            self.first_state,
            step=self.first_state.step - (before.step - target.step),
            tokens=self.first_state.tokens - (before.tokens - target.tokens),
        )
        self._restart_metrics()
        self.speedometer.exclude_pause()
        return True

    def _restart_metrics(self) -> None:
        if self.run is None:
            return
        logger.warning(
            "rolled back to step %d, on with sample %d; roll-backs so far: %d",
            self.state.step,
            self.state.next_sample,
            self.state.rollbacks,
        )
        try:
            self.run.start_metrics(self.state.step)
        except OSError as problem:
            say_once(f"`{self.run.metrics_path}` cannot be written: {problem.strerror}; training goes on")

    def write_event(self, event: str, **values: Any) -> None:
        """Append to events.jsonl what happened at the current step (rank 0), if there is room."""
        if self.run is None:
            return
        try:
            self.run.write_event(event, self.state.step, **values)
        except OSError as problem:
            say_once(f"`{self.run.events_path}` cannot be written: {problem.strerror}; training goes on")

    def update_ledger(self) -> float:
        """Write this attempt's progress to the energy ledger; collective.

        Returns:
            The joules of all attempts so far and of all ranks: each meters its GPU, one a machine the rest.
        """
        reading = self.ledger.update(
            steps=self.state.step - self.first_state.step, tokens=self.state.tokens - self.first_state.tokens
        )
        return self.earlier_joules + sum_over_ranks(reading.joules_total, self.mesh)

    def record(self, values: Mapping[str, Any]) -> None:
        """Write numbers of the current step to metrics.jsonl and the sinks (rank 0), if there is room."""
        if self.run is None:
            return
        try:
            self.run.write_metrics(self.state.step, values)
        except OSError as problem:
            say_once(f"`{self.run.metrics_path}` cannot be written: {problem.strerror}; training goes on")
        numbers = {name: value for name, value in values.items() if value is not None}
        for sink in self.sinks:
            sink.write(self.state.step, numbers)

    def set_status(self, status: str, **details: Any) -> None:
        """Write status.json (rank 0)."""
        if self.run is None:
            return
        try:
            self.run.set_status(status, self.state.step, **details)
        except OSError as problem:
            say_once(f"the status of `{self.run.path}` cannot be written: {problem.strerror}")


@contextmanager
def open_session(
    config: RunConfig, mesh: Mesh, launch: Launch, *, stop: StopFlag, hooks: Sequence[Hook], verify: bool
) -> Iterator[Session]:
    """Open the run folder, check everything that can be checked, build and resume; close in reverse.

    Raises:
        RunError, ResourceError, DataError, CheckpointError, DistributedError: before the first step.
    """
    with ExitStack() as stack:
        run = _open_run(config, mesh, stack)
        if run is not None:
            say_what_has_no_effect(config.schedule, total_steps=config.total_steps)
        _require_resources(config, mesh, launch)
        batches = _open_data(config, mesh, launch, stop=stop)
        require_same(batches.fingerprints)
        earlier_joules = total(read_segments(config.run.folder)).joules
        model = build_model(config, mesh)
        session = Session(
            config=config,
            mesh=mesh,
            run=run,
            model=model,
            optimizer=make_optimizer(model, config.optimizer),
            batches=batches,
            checkpointer=stack.enter_context(
                Checkpointer(config.run.folder / "checkpoints", config.checkpoint)
            ),
            speedometer=Speedometer(
                config.model, seq_len=config.data.seq_len, world_size=launch.world_size, device=mesh.device
            ),
            ledger=stack.enter_context(_ledger(config, mesh, launch)),
            stop=stop,
            hooks=hooks,
            earlier_joules=earlier_joules,
        )
        session.resume(verify=verify)
        everywhere(lambda: _open_metrics(session, stack), dist.group.WORLD)
        session.set_status("running")
        stack.enter_context(_status_at_end(session))
        yield session


def _open_metrics(session: Session, stack: ExitStack) -> None:
    """On rank 0, once the run may go on: keep its config, and open what receives its numbers."""
    if session.run is None:
        return
    configuration.save(session.config, session.run.path / "config.toml")
    session.run.start_metrics(session.state.step)
    if session.state.step > 0 or session.run.events_path.exists():
        session.write_event("resumed", rollbacks=session.state.rollbacks)
    session.sinks = open_sinks(session.config.run.sinks, session.run.path)
    for sink in session.sinks:
        stack.callback(sink.close)


def require_same_settings(config: RunConfig) -> None:
    """Check, before anything is done together, that all ranks were given the same settings.

    Raises:
        DistributedError: on all ranks, with each setting that differs.
    """
    settings = configuration.flatten(configuration.to_values(config))
    require_same({name: repr(value) for name, value in settings.items()})


def configuration_hash(config: RunConfig) -> str:
    """Return the sha256 of everything in the config."""
    return sha256_bytes(config.model_dump_json().encode())


def stop_if_asked(mesh: Mesh, stop: StopFlag) -> None:
    """Leave, on all ranks together, if any rank was asked to stop before the first step.

    Raises:
        StoppedEarly: nothing had to be saved.
    """
    if any_rank(stop.requested, mesh):
        raise StoppedEarly("stopped before the first step", hint="run the same command again to go on")


def _open_run(config: RunConfig, mesh: Mesh, stack: ExitStack) -> RunFolder | None:
    """Open the folder on rank 0; a refusal there is raised on all ranks."""
    run = RunFolder(config.run.folder) if mesh.is_first else None

    def open_first() -> None:
        if run is not None:
            run.open()
            stack.callback(run.close)

    everywhere(open_first, dist.group.WORLD)
    return run


def _require_resources(config: RunConfig, mesh: Mesh, launch: Launch) -> None:
    """Check memory and disk on every rank; ranks on one machine share its memory."""
    machines = gather(machine(), dist.group.WORLD)
    check = partial(
        require_resources,
        config,
        world_size=launch.world_size,
        device="cuda" if mesh.device.type == "cuda" else "cpu",
        local_ranks=machines.count(machines[launch.rank]),
        gpu=mesh.device.index,
    )
    everywhere(check, dist.group.WORLD)


def _open_data(config: RunConfig, mesh: Mesh, launch: Launch, *, stop: StopFlag) -> Batches:
    """Open the shards on every rank, each hashing its part of the files."""
    opened: list[Batches] = []

    def open_and_verify() -> None:
        batches = Batches(config.data, vocab_size=config.model.vocab_size)
        batches.require_epochs(config.total_steps * config.batch_sequences)
        heldout = open_heldout(config.data, max_tokens=None)
        if config.data.verify:
            for verify in (batches.verify, *(part.verify for part in heldout.values())):
                verify(launch.rank, launch.world_size, stop_requested=lambda: stop.requested)
        opened.append(batches)

    everywhere(open_and_verify, dist.group.WORLD)
    stop_if_asked(mesh, stop)
    return opened[0]


def _ledger(config: RunConfig, mesh: Mesh, launch: Launch) -> LedgerSegment:
    """Start metering: each rank its own GPU, the first rank of each machine also the machine."""
    meter = EnergyMeter(config.carbon, gpus=own_gpus(mesh.device), host=launch.local_rank == 0).start()
    return LedgerSegment(config.run.folder, meter, activity="train", rank=launch.rank)


def own_gpus(device: torch.device) -> list[str]:
    """Return the UUID of this rank's GPU as NVML has it: numbers mean others under CUDA_VISIBLE_DEVICES."""
    return [f"GPU-{torch.cuda.get_device_properties(device).uuid}"] if device.type == "cuda" else []


def _say_skipped(path: Path, reason: str) -> None:
    logger.warning("passing over the checkpoint `%s`: %s", path, reason)


@contextmanager
def _status_at_end(session: Session) -> Iterator[None]:
    """Leave in status.json how the session ended."""
    try:
        yield
    except StoppedEarly:
        session.set_status("stopped")
        raise
    except BaseException as problem:
        session.set_status("failed", error=f"{type(problem).__name__}: {problem}")
        raise
    session.set_status("finished")
