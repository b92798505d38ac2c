"""Which checkpoints stay, and tidying after a kill. Entry points: `clean_up` at start, `retain` after a save.

Only rank 0 calls these, and the lock of the run folder keeps other runs out. A checkpoint is deleted by
renaming it to a temporary name first, so a half-deleted one never carries a checkpoint's name.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from criadero import files
from criadero.checkpoint.config import CheckpointConfig
from criadero.checkpoint.manifest import step_folder, steps_in

logger = logging.getLogger("criadero")

LATEST = "latest"
_REPLACED = ".replaced"


def clean_up(folder: Path) -> None:
    """Remove what a killed process left half-written, and bring back what it was about to replace."""
    if not folder.is_dir():
        return
    for leftover in folder.glob("*.tmp-*"):
        logger.info("removing `%s`, left half-written by an earlier process", leftover)
        _remove(leftover)
    for replaced in folder.glob(f"step-*{_REPLACED}"):
        final = replaced.with_name(replaced.name.removesuffix(_REPLACED))
        if final.exists():
            _remove(replaced)
        else:
            replaced.rename(final)


def commit(temporary: Path, folder: Path, step: int) -> None:
    """Give the finished checkpoint its name and point `latest` at it.

    If the step exists already (its content was damaged, or another resume went this way), the old one
    steps aside for the moment of the rename and `clean_up` knows how to bring it back.
    """
    final = step_folder(folder, step)
    replaced = final.with_name(final.name + _REPLACED)
    if final.exists():
        final.rename(replaced)
    try:
        files.commit_folder(temporary, final)
    except BaseException:
        if replaced.exists() and not final.exists():
            replaced.rename(final)
        raise
    files.fault_point("checkpoint-before-latest")
    files.write_text(folder / LATEST, final.name + "\n")
    _remove(replaced)


def retain(folder: Path, newest_step: int, config: CheckpointConfig) -> None:
    """Delete what `config` does not keep, now that `newest_step` is whole.

    Steps beyond the newest belong to a course of the run that was left by resuming from an earlier step.
    """
    steps = steps_in(folder)
    reached = [step for step in steps if step <= newest_step]
    kept = set(reached[-config.keep :])
    if config.keep_every_steps is not None:
        kept |= {step for step in reached if step % config.keep_every_steps == 0}
    for step in steps:
        if step > newest_step:
            logger.warning("removing the checkpoint of step %d: this run was resumed before it", step)
        if step not in kept:
            _remove(step_folder(folder, step))


def _remove(path: Path) -> None:
    """Delete a file or folder; a failure is said, not raised, because nothing depends on it."""
    doomed = path
    try:
        if path.is_dir():
            if ".tmp-" not in path.name:
                doomed = files.temporary_path(path)
                path.rename(doomed)
            shutil.rmtree(doomed)
        else:
            path.unlink(missing_ok=True)
    except OSError as problem:
        logger.warning("`%s` could not be removed: %s", doomed, problem)
