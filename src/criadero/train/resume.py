"""Whether a run may be continued with a config: what must be as it was, what may change, and what is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist

from criadero import files
from criadero.carbon.ledger import read_segments, total
from criadero.checkpoint.load import checkpoint_at, read_state, verified_manifest
from criadero.checkpoint.manifest import MANIFEST
from criadero.config import flatten, to_values
from criadero.errors import CheckpointError, CriaderoError, DataError
from criadero.parallel.collectives import everywhere
from criadero.runs import METRICS, STATUS, read_metrics
from criadero.train.config import RunConfig
from criadero.train.state import TrainState

# Settings that change neither the numbers so far nor the meaning of the saved position. A larger
# train.tokens extends the run; the schedule may be shaped anew for it.
_MAY_CHANGE = (
    "run.",
    "heldout.",
    "checkpoint.",
    "parallel.",
    "carbon.",
    "profile",
    "schedule.",
    "initial_model",
    "data.sources",
    "data.verify",
    "data.max_bad_sequences",
    "train.tokens",
    "train.micro_batch_sequences",
    "train.device",
    "train.compile",
    "train.recompute",
    "train.loss_chunk_tokens",
    "train.timeout_seconds",
    "train.on_nonfinite",
    "train.on_spike",
    "train.spike_factor",
    "train.skip_budget",
)


def require_same_run(saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Compare the config in a checkpoint with the one asked for.

    Raises:
        CheckpointError: a setting differs that must not; all of them are listed.
    """
    before, now = _fixed(saved), _fixed(current)
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if names:
        listed = "\n".join(f"  - {n}: was {before.get(n)!r}, is {now.get(n)!r}" for n in names)
        raise CheckpointError(
            f"the run was started with other settings:\n{listed}",
            hint="set them back, or choose another run.folder to start anew",
        )


def require_same_data(saved: Mapping[str, str], current: Mapping[str, str]) -> None:
    """Compare the fingerprints of the sources, name by name.

    Raises:
        DataError: a source is missing, new or has changed since the run began.
    """
    for name in sorted(saved.keys() | current.keys()):
        if saved.get(name) != current.get(name):
            raise DataError(
                f"the data of source `{name}` is not what the run began with: "
                f"fingerprint was {saved.get(name)}, is {current.get(name)}",
                hint="bring the original shards back, or choose another run.folder to start anew",
            )


@dataclass(frozen=True)
class Finished:
    """What a finished run has stored: its last state, the scores of all held-out text, its energy."""

    state: TrainState
    heldout: dict[str, float]
    joules: float


def read_finished(config: RunConfig, *, verify: bool) -> Finished | None:
    """Return the stored end of a run that has nothing left to do under `config`, None for any other.

    It ended in order at the last step of the budget, its model is the one of its last checkpoint, and that
    one is whole. Collective over all ranks.

    Args:
        config: what is asked for.
        verify: hash the checkpoint.

    Raises:
        CheckpointError: a setting differs that must not.
    """
    first, everybody = dist.get_rank() == 0, dist.group.WORLD
    done = everywhere(lambda: _stored_end(config) if first else None, everybody)[0]
    try:
        if done is not None:
            checkpoint = checkpoint_at(config.run.folder / "checkpoints", config.total_steps)
            verified_manifest(checkpoint, verify=verify, group=everybody)
    except CheckpointError:
        return None
    return done


def _stored_end(config: RunConfig) -> Finished | None:
    folder, step = config.run.folder, config.total_steps
    try:
        status = files.read_json(folder / STATUS)
        if (status.get("state"), status.get("step")) != ("finished", step):
            return None
        checkpoint = checkpoint_at(folder / "checkpoints", step)
        saved = read_state(checkpoint, verify=False)
        model = files.read_json(folder / "model" / MANIFEST)["inputs"]
        if model["checkpoint_manifest_sha256"] != files.sha256_file(checkpoint / MANIFEST):
            return None
    except (CriaderoError, OSError, KeyError, AttributeError):
        return None  # something is missing: it is made anew
    require_same_run(saved["config"], to_values(config))
    last = [row for row in read_metrics(folder / METRICS) if row["step"] == step]
    scores = {name: value for row in last for name, value in row.items() if name.startswith("heldout_")}
    joules = total(read_segments(folder)).joules
    return Finished(TrainState.from_json(saved["train"]), scores, joules)


def _fixed(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in flatten(values).items() if not key.startswith(_MAY_CHANGE)}
