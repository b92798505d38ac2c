"""What a run left behind, in a form in which two runs can be compared bit by bit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from criadero.checkpoint.load import find_newest_good, read_state, read_tensors
from criadero.runs import read_metrics

CURVE = ("loss", "learning_rate", "gradient_norm", "tokens")


@dataclass(frozen=True)
class Outcome:
    """The end of a run: state and tensors of its newest checkpoint, and its curve by step."""

    state: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    curve: list[tuple[Any, ...]]


def outcome_of(run: Path) -> Outcome:
    """Read what the run in this folder has come to."""
    newest = find_newest_good(run / "checkpoints")
    assert newest is not None
    state = read_state(newest)
    rows = [row for row in read_metrics(run / "metrics.jsonl") if "loss" in row]
    curve = [(row["step"], *(row[name] for name in CURVE)) for row in rows]
    return Outcome(
        {"train": state["train"], "optimizer_steps": state["optimizer_steps"]},
        dict(read_tensors(newest)),
        curve,
    )


def assert_same(found: Outcome, expected: Outcome) -> None:
    """Fail unless both ends are equal in every bit: weights, moments, state, and the curve of all steps."""
    assert [row[0] for row in found.curve] == [row[0] for row in expected.curve]
    assert found.curve == expected.curve
    assert found.state == expected.state
    assert found.tensors.keys() == expected.tensors.keys()
    different = [name for name, tensor in expected.tensors.items() if not _same(found.tensors[name], tensor)]
    assert not different


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether all bits agree; NaN equals NaN, 0.0 differs from -0.0."""
    return one.dtype == other.dtype and torch.equal(one.view(torch.uint8), other.view(torch.uint8))


def leftovers(run: Path) -> list[str]:
    """Return the temporary files and folders that lie about in a run folder."""
    return sorted(str(path.relative_to(run)) for path in run.rglob("*.tmp-*"))
