"""Whether a checkpoint may be continued with a config: what must be as it was, and what may change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from criadero.config import flatten
from criadero.errors import CheckpointError, DataError

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


def _fixed(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in flatten(values).items() if not key.startswith(_MAY_CHANGE)}
