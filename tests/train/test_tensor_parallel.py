"""The real run on ranks that share matrix products: the curve, the end and the bookkeeping of one process."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from criadero.carbon.reading import EnergyComponent, EnergyReading
from criadero.formats.load import open_model
from criadero.parallel.launch import Launch
from criadero.parallel.mesh import Mesh
from criadero.runs import read_metrics, summarise
from criadero.train import session as sessions
from criadero.train.build import build_model
from criadero.train.config import RunConfig
from criadero.train.session import Session, open_session
from criadero.train.state import TrainState
from criadero.train.step import train_step
from criadero.train.stop import StopFlag
from faults.outcome import Outcome, outcome_of
from faults.program import run_on_ranks
from ranks import run_ranks
from tiny_run import TinyRun

pytestmark = [pytest.mark.xdist_group("ranks"), pytest.mark.timeout(300)]

# Sums over ranks are taken in another order, in float32: a few units in the last place per step.
LOSS_TOLERANCE = 2e-5
# Ranks, their layout, and the one that is asked to stop: never the one that the others follow.
ATTEMPTS = (
    (2, ("parallel.tp=2",), 1),
    (4, ("parallel.tp=2", "parallel.dp_replicate=2", "parallel.tp_chunks=2"), 3),
    (1, (), 0),
    (4, ("parallel.tp=2", "train.recompute=paper"), None),
)


@pytest.fixture(scope="module")
def folder(tiny: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of 20 steps that was stopped every 5 and went on in another layout."""
    folder = tmp_path_factory.mktemp("layouts")
    config = tiny.config(folder)
    for attempt, (ranks, settings, stopped) in enumerate(ATTEMPTS):
        plan = {"terminate_at_step": {"step": 5 * (attempt + 1), "rank": stopped}} if attempt < 3 else {}
        for ended in run_on_ranks(ranks, "train", config, *settings, folder=folder, plan=plan):
            assert ended.code == (75 if attempt < 3 else 0), ended.err
    return folder / "run"


@pytest.mark.slow
def test_the_curve_is_that_of_one_process_whatever_the_layout(folder: Path, uncut: Outcome):
    found = outcome_of(folder)
    assert [row[0] for row in found.curve] == list(range(1, 21))
    losses, expected = ([row[1] for row in outcome.curve] for outcome in (found, uncut))
    apart = max(abs(one - other) for one, other in zip(losses, expected, strict=True))
    print(f"largest difference of the loss: {apart:.1e}")
    assert losses == pytest.approx(expected, abs=LOSS_TOLERANCE)
    assert [row[3] for row in found.curve] == pytest.approx([row[3] for row in uncut.curve], rel=1e-4)
    assert [row[4] for row in found.curve] == [row[4] for row in uncut.curve]
    assert found.state["train"]["tokens"] == uncut.state["train"]["tokens"]
    assert summarise(folder).state == "finished"


@pytest.mark.slow
def test_held_out_text_whose_last_window_is_short_scores_as_in_one_process(folder: Path, uncut_folder: Path):
    last, expected = (
        [row for row in read_metrics(run / "metrics.jsonl") if "heldout_loss" in row][-1]
        for run in (folder, uncut_folder)
    )
    assert last["step"] == expected["step"] == 20
    assert last["heldout_loss"] == pytest.approx(expected["heldout_loss"], abs=LOSS_TOLERANCE)


@pytest.mark.slow
def test_the_model_folder_of_shared_products_holds_the_weights_of_the_last_checkpoint(folder: Path):
    saved = outcome_of(folder).tensors
    stored = open_model(folder / "model").tensors
    assert {f"model.{name}" for name in stored} == {name for name in saved if name.startswith("model.")}
    for name, tensor in stored.items():
        assert torch.equal(tensor.read(), saved[f"model.{name}"]), name


def weights_from(mesh: Mesh, config: RunConfig) -> list[str]:
    """Names of parameters that differ from those of the initial model."""
    stored = open_model(config.initial_model).tensors
    model = build_model(config, mesh)
    whole = {name: parameter.full_tensor() for name, parameter in model.named_parameters()}
    assert whole.keys() == stored.keys()
    return [name for name, tensor in whole.items() if not torch.equal(tensor, stored[name].read())]


@pytest.mark.slow
def test_ranks_that_share_products_and_shards_start_from_another_model(
    tiny: TinyRun, folder: Path, tmp_path: Path
):
    config = tiny.run_config(tmp_path, f"initial_model={folder / 'model'}")
    assert run_ranks(weights_from, 4, config, tp=2) == [[]] * 4


def opened(mesh: Mesh, config: RunConfig) -> dict[str, Any]:
    """What a session of two ranks that share products knows, and what a step says, one rank asked to stop."""
    asked: list[int] = []
    real = sessions.Speedometer

    def speedometer(*args: Any, world_size: int, **options: Any) -> Any:
        asked.append(world_size)
        return real(*args, world_size=world_size, **options)

    sessions.Speedometer = speedometer
    rank = mesh.tensor_parallel.get_local_rank()
    launch = Launch(rank, rank, 2, "127.0.0.1:1")
    with open_session(config, mesh, launch, stop=StopFlag(), hooks=(), verify=True) as session:
        step_from = session.batches.iterate(
            0, global_count=config.batch_sequences, rank=mesh.dp_rank, world_size=mesh.dp_size, micro_count=2
        )
        with step_from as steps:
            result = train_step(
                session.model,
                session.optimizer,
                next(iter(steps))[0],
                mesh=mesh,
                config=config,
                state=session.state,
                learning_rate=0.0,
                stop_requested=rank == 1,
            )
    return {"ranks": asked, "stop": result.stop, "tokens": result.tokens, "loss": result.loss}


def test_speed_stop_and_tokens_are_those_of_the_run_not_of_a_part_of_its_ranks(tiny: TinyRun, tmp_path: Path):
    config = tiny.run_config(tmp_path, "parallel.tp=2")
    first, second = run_ranks(opened, 2, config, tp=2)
    assert first == second
    assert first["ranks"] == [2]
    assert first["stop"] is True
    assert first["tokens"] == config.train.batch_tokens
    assert first["loss"] == pytest.approx(5.72, abs=0.01)


def joules_so_far(mesh: Mesh) -> float:
    component = EnergyComponent("gpu", 10.0 * (1 + mesh.tensor_parallel.get_local_rank()), "measured", "")
    ledger = SimpleNamespace(update=lambda **_: EnergyReading((component,), 1.0))
    state = TrainState(step=3)
    session = SimpleNamespace(ledger=ledger, mesh=mesh, state=state, first_state=state, earlier_joules=5.0)
    return Session.update_ledger(session)


def test_joules_of_ranks_that_read_the_same_samples_are_all_counted():
    assert run_ranks(joules_so_far, 2, tp=2) == [35.0, 35.0]
