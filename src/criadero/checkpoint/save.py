"""Saving without stopping the training. Entry point: `Checkpointer`.

`save` copies this rank's shards and returns; one thread writes them, talking to the other ranks through a
process group of its own. Order on disk: tensors, state.json, manifest.json, rename, `latest`. A kill at any
moment leaves the previous checkpoint the newest whole one. A full disk costs a checkpoint, not the run.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist

from criadero import files
from criadero.checkpoint import retain
from criadero.checkpoint.config import CheckpointConfig
from criadero.checkpoint.manifest import (
    STATE,
    FileEntry,
    Manifest,
    Slice,
    TensorEntry,
    step_folder,
    write_manifest,
)
from criadero.checkpoint.shard import Shard, shard_of
from criadero.checkpoint.write import RankFiles, describe_files, write_tensors
from criadero.errors import CheckpointError, ResourceError, StoppedEarly
from criadero.parallel.collectives import everywhere, gather

logger = logging.getLogger("criadero")

FAILURES_IN_A_ROW = 3
_PATIENCE_AFTER_ERROR_SECONDS = 60
_DISK_SECONDS = 1800  # how long a rank waits for the disk of another


@dataclass(frozen=True)
class _Snapshot:
    """What will be written, cut loose from the training."""

    step: int
    tokens: int
    config_sha256: str
    shards: dict[str, Shard]
    state_json: str


class Checkpointer:
    """Writes the checkpoints of one run; all ranks make one and call it in step.

    Use as a context manager or call `close`: the thread must end before the process group does.
    """

    def __init__(
        self, folder: Path, config: CheckpointConfig, *, group: dist.ProcessGroup | None = None
    ) -> None:
        """Open `folder` (made if needed) and tidy it on rank 0; collective.

        Args:
            folder: where `step-00000123` folders go.
            config: interval and retention.
            group: a gloo group for this object alone, which `close` destroys; made over all ranks if None.
        """
        self.folder = folder
        self.config = config
        self.last_saved_step: int | None = None
        self._failures = 0
        self._problem: Exception | None = None
        self._thread: threading.Thread | None = None
        # The thread's collectives must not mix with those of the training.
        self.group = group or _new_group()
        everywhere(self._open_folder, self.group)

    def _open_folder(self) -> None:
        if self.group.rank() == 0:
            files.require_writable_folder(self.folder)
            retain.clean_up(self.folder)

    def save(
        self,
        step: int,
        tensors: Mapping[str, torch.Tensor],
        *,
        state: Mapping[str, Any],
        tokens: int,
        config_sha256: str,
    ) -> None:
        """Save `tensors` (DTensors, or equal on all ranks) and `state` (rank 0's JSON values) as they are.

        Returns as soon as the values are copied, unless the previous save is still being written.

        Raises:
            CheckpointError: three saves in a row failed, or an earlier one failed for another reason than
                the disk.
        """
        self.wait()
        shards = {name: shard_of(tensor).cloned_to_cpu() for name, tensor in tensors.items()}
        snapshot = _Snapshot(step, tokens, config_sha256, shards, json.dumps(state, indent=1))
        if not self.config.background:
            self._try_to_write(snapshot)
            self._raise_problem()
            return
        self._thread = threading.Thread(
            target=self._try_to_write, args=(snapshot,), name="criadero-checkpoint", daemon=True
        )
        self._thread.start()

    def wait(self) -> int | None:
        """Wait until nothing is being written; return the last step that this object saved well.

        Raises:
            CheckpointError: as `save`.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._raise_problem()
        return self.last_saved_step

    def wait_for(self, step: int) -> None:
        """Wait until the checkpoint of `step` is whole: before telling anybody that all is saved; collective.

        Raises:
            CheckpointError: it could not be written (a full disk alone is only a warning in `save`).
        """
        self.wait()
        everywhere(lambda: self._require_on_disk(step), self.group)

    def _require_on_disk(self, step: int) -> None:
        if self.group.rank() == 0 and not step_folder(self.folder, step).is_dir():
            raise CheckpointError(
                f"the checkpoint of step {step} is not in `{self.folder}`",
                hint="see the warnings above; the newest one there is what a new start goes on from",
            )

    def close(self) -> None:
        """Wait for the last save and leave the checkpoint group; collective.

        Raises:
            CheckpointError: as `save`.
        """
        try:
            self.wait()
        finally:
            dist.destroy_process_group(self.group)

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if problem is None or isinstance(problem, StoppedEarly):
            self.close()
        elif self._thread is not None:
            # The training failed, perhaps on all ranks alike: a save under way may still come to its end.
            self._thread.join(_PATIENCE_AFTER_ERROR_SECONDS)

    def _raise_problem(self) -> None:
        problem, self._problem = self._problem, None
        if problem is not None:
            raise problem

    def _try_to_write(self, snapshot: _Snapshot) -> None:
        """Write, and decide the same on every rank about what went wrong."""
        started = time.monotonic()
        try:
            self._write(snapshot)
        except (OSError, ResourceError) as problem:
            self._failures += 1
            self._report(snapshot.step, problem)
        except Exception as problem:
            self._problem = problem
        else:
            self._failures = 0
            self.last_saved_step = snapshot.step
            logger.info("checkpoint of step %d saved in %.1f s", snapshot.step, time.monotonic() - started)

    def _report(self, step: int, problem: OSError | ResourceError) -> None:
        reason = problem.message if isinstance(problem, ResourceError) else problem.strerror or str(problem)
        text = f"the checkpoint of step {step} could not be written: {reason}"
        if self._failures >= FAILURES_IN_A_ROW:
            self._problem = CheckpointError(
                f"{text}; {self._failures} checkpoints in a row failed",
                hint=f"make room in `{self.folder}` and run the same command again",
            )
        elif self.group.rank() == 0:
            logger.warning("%s; the previous one stays, training goes on (failure %d)", text, self._failures)

    def _write(self, snapshot: _Snapshot) -> None:
        temporary = Path(gather(str(self._temporary(snapshot.step)), self.group)[0])
        try:
            everywhere(lambda: self._make_room(temporary, snapshot), self.group)
            write_tensors(temporary, snapshot.shards, self.group)
            rank = self.group.rank()
            parts = everywhere(lambda: describe_files(temporary, snapshot.shards, rank), self.group)
            everywhere(lambda: self._commit(temporary, snapshot, parts), self.group)
        except BaseException:
            if self.group.rank() == 0:
                shutil.rmtree(temporary, ignore_errors=True)
            raise

    def _temporary(self, step: int) -> Path:
        return files.temporary_path(step_folder(self.folder, step))

    def _make_room(self, temporary: Path, snapshot: _Snapshot) -> None:
        if self.group.rank() != 0:
            return
        needed_bytes = int(1.1 * sum(shard.global_bytes for shard in snapshot.shards.values())) + (1 << 20)
        files.require_free_bytes(self.folder, needed_bytes, purpose="a checkpoint")
        temporary.mkdir()

    def _commit(self, temporary: Path, snapshot: _Snapshot, parts: list[RankFiles]) -> None:
        """On rank 0: the last three files and the rename, then make room."""
        if self.group.rank() != 0:
            return
        state_path = temporary / STATE
        files.write_text(state_path, snapshot.state_json)
        state_entry = FileEntry(size_bytes=state_path.stat().st_size, sha256=files.sha256_file(state_path))
        files.fault_point("checkpoint-before-manifest")
        write_manifest(temporary, _manifest_of(snapshot, parts, state_entry))
        retain.commit(temporary, self.folder, snapshot.step)
        retain.retain(self.folder, snapshot.step, self.config)


def _new_group() -> dist.ProcessGroup:
    timeout = timedelta(seconds=_DISK_SECONDS)
    group: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=timeout)
    return group


def _manifest_of(snapshot: _Snapshot, parts: list[RankFiles], state_entry: FileEntry) -> Manifest:
    slices: dict[str, list[Slice]] = {name: [] for name in snapshot.shards}
    for part in parts:
        for name, piece in part.slices.items():
            slices[name].append(piece)
    return Manifest(
        step=snapshot.step,
        tokens=snapshot.tokens,
        config_sha256=snapshot.config_sha256,
        world_size=len(parts),
        files={name: entry for part in parts for name, entry in part.files.items()} | {STATE: state_entry},
        tensors={
            name: TensorEntry(shape=shard.shape, dtype=shard.dtype, slices=tuple(slices[name]))
            for name, shard in snapshot.shards.items()
        },
    )
