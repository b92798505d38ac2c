"""Numbers gone wrong: no weight changes, all ranks agree, and the message says where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from criadero.errors import NumericsError
from criadero.runs import read_metrics, summarise
from criadero.train.hooks import NoHook
from criadero.train.loop import TrainResult, train
from faults.program import run_on_ranks
from tiny_run import TinyRun

pytestmark = pytest.mark.xdist_group("numerics")


class Poison(NoHook):
    """Damages chosen steps, and keeps the weights as they are before each step."""

    def __init__(self, steps: tuple[int, ...], *, how: str) -> None:
        self.steps, self.how = steps, how
        self.model = None
        self.weights: dict[int, list] = {}

    def before_step(self, model, state) -> None:
        step = state.step + 1
        locals_ = [parameter.detach().to_local() for parameter in model.parameters()]
        if self.how == "weight" and step in self.steps:
            locals_[3].view(-1)[0] = float("nan")
        elif not self.weights:
            model.register_forward_hook(lambda module, arguments, loss: self._damage(module, loss))
        self.weights[step] = [values.clone() for values in locals_]
        self.now, self.live = step, locals_

    def _damage(self, module, loss):
        if self.now not in self.steps or not module.training:
            return loss
        if self.how == "loss":
            return loss * float("nan")
        if self.how == "gradient":  # the value stays as it is, its gradient becomes infinite
            return loss + (loss - loss.detach()) * 1e38 * 1e38
        return loss + (loss - loss.detach()) * 1e3 if self.how == "spike" else loss

    def unchanged(self, step: int) -> bool:
        """Whether a step left the weights in the state it found them in."""
        after = self.weights.get(step + 1, self.live)
        return all(_same_bits(old, new) for old, new in zip(self.weights[step], after, strict=True))


def _same_bits(one, other) -> bool:
    import torch

    return torch.equal(one.view(torch.int32), other.view(torch.int32))


def rows_of(folder: Path) -> dict[int, dict]:
    return {row["step"]: row for row in read_metrics(folder / "run" / "metrics.jsonl") if "skipped" in row}


def train_with(tiny: TinyRun, folder: Path, hook: Poison, *overrides: str, steps: int = 8) -> TrainResult:
    fixed = ("heldout.every_steps=0", "checkpoint.every_steps=100", "train.skip_budget=1")
    return train(tiny.run_config(folder, *fixed, *overrides, steps=steps), hooks=[hook])


@pytest.mark.parametrize("how", ["weight", "loss", "gradient"])
def test_numbers_that_are_not_finite_stop_the_run_and_change_no_weight(
    tiny: TinyRun, tmp_path: Path, how: str
):
    hook = Poison((5,), how=how)
    with pytest.raises(NumericsError, match=r"step 5: .*training samples 16 to 19; no parameter") as problem:
        train_with(tiny, tmp_path, hook)
    assert ("loss not finite on rank 0" in problem.value.message) == (how != "gradient")
    where = "gradient not finite in `embedding.weight` on rank 0"
    assert (where in problem.value.message) == (how == "gradient")
    assert "criadero shards show --run" in (problem.value.hint or "")
    assert hook.unchanged(5)
    assert not hook.unchanged(4)
    assert summarise(tmp_path / "run").state == "failed"


def test_such_a_step_may_be_skipped_and_counted(tiny: TinyRun, tmp_path: Path, caplog):
    hook = Poison((5,), how="loss")
    result = train_with(tiny, tmp_path, hook, "train.on_nonfinite=skip")
    assert [step for step in range(1, 9) if hook.unchanged(step)] == [5]
    assert result.state.skipped_steps == 1
    assert result.state.step == 8
    rows = rows_of(tmp_path)
    assert [step for step, row in rows.items() if row["skipped"]] == [5]
    assert "step 5: loss or gradient is not finite" in caplog.text
    # What programs read is JSON, which has no NaN.
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} in metrics.jsonl"))
    assert rows[5]["loss"] is None


def test_a_used_up_budget_of_skipped_steps_stops_the_run(tiny: TinyRun, tmp_path: Path):
    hook = Poison((3, 5), how="loss")
    with pytest.raises(NumericsError, match=r"step 5: .*; 1 steps were skipped before"):
        train_with(tiny, tmp_path, hook, "train.on_nonfinite=skip")
    assert hook.unchanged(3)
    assert hook.unchanged(5)


@pytest.mark.parametrize("policy", ["report", "skip"])
def test_a_spike_of_the_gradient_is_reported_and_may_be_skipped(
    tiny: TinyRun, tmp_path: Path, caplog, policy: str
):
    hook = Poison((22,), how="spike")
    result = train_with(tiny, tmp_path, hook, f"train.on_spike={policy}", steps=24)
    assert result.state.spikes == 1
    assert result.state.skipped_steps == (policy == "skip")
    assert hook.unchanged(22) == (policy == "skip")
    assert [step for step, row in rows_of(tmp_path).items() if row["spike"]] == [22]
    assert "step 22: the gradient norm is a spike" in caplog.text
    assert "spikes so far: 1" in caplog.text


def test_a_nan_on_one_rank_stops_all_with_the_same_message_and_no_change(tiny: TinyRun, tmp_path: Path):
    plan = {"nan_loss": {"step": 5, "rank": 1}}
    for ended in run_on_ranks(2, "train", tiny.config(tmp_path), folder=tmp_path, plan=plan):
        assert ended.code == 1
        assert "step 5: loss nan" in ended.err
        assert "loss not finite on rank 1, training samples 16 to 19" in ended.err
        assert "weights of step 4: changed" in ended.err
        assert "weights of step 5: unchanged" in ended.err
