"""Any number of ranks trains the same run: the same samples in the same order, the curve within rounding."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from criadero.runs import summarise
from faults.outcome import Outcome, outcome_of
from faults.program import run_on_ranks
from tiny_run import BATCH_SEQUENCES, TinyRun

pytestmark = [pytest.mark.xdist_group("ranks"), pytest.mark.timeout(300)]

# Sums over ranks are taken in another order, in float32: a few units in the last place per step, which
# twenty steps of AdamW at a high rate enlarge.
LOSS_TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def on_1_2_4_3_ranks(tiny: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of 20 steps that was stopped every 5 and went on with another number of ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    config = tiny.config(folder)
    for attempt, ranks in enumerate((1, 2, 4, 3)):
        plan = {"log_samples": {"path": str(folder / f"samples{attempt}")}}
        if attempt < 3:
            plan["terminate_at_step"] = {"step": 5 * (attempt + 1), "rank": ranks - 1}
        for ended in run_on_ranks(ranks, "train", config, folder=folder, plan=plan):
            assert ended.code == (75 if attempt < 3 else 0), ended.err
    return folder


@pytest.mark.slow
def test_the_samples_are_the_same_in_the_same_order(on_1_2_4_3_ranks: Path):
    seen: dict[int, list[int]] = {}
    for attempt, ranks in enumerate((1, 2, 4, 3)):
        for rank in range(ranks):
            path = on_1_2_4_3_ranks / f"samples{attempt}.{rank}"
            for line in path.read_text().splitlines():
                step, samples = json.loads(line)
                seen.setdefault(step, []).extend(samples)
    assert [sample for step in sorted(seen) for sample in seen[step]] == list(range(20 * BATCH_SEQUENCES))
    assert sorted(seen) == list(range(1, 21))


@pytest.mark.slow
def test_the_curve_is_the_same_within_rounding(on_1_2_4_3_ranks: Path, uncut: Outcome):
    found = outcome_of(on_1_2_4_3_ranks / "run")
    assert [row[0] for row in found.curve] == list(range(1, 21))
    losses, expected = ([row[1] for row in curve.curve] for curve in (found, uncut))
    apart = max(abs(one - other) for one, other in zip(losses, expected, strict=True))
    print(f"largest difference of the loss: {apart:.1e}")
    assert losses == pytest.approx(expected, abs=LOSS_TOLERANCE)
    assert [row[2] for row in found.curve] == [row[2] for row in uncut.curve]
    assert [row[3] for row in found.curve] == pytest.approx([row[3] for row in uncut.curve], rel=1e-3)
    assert [row[4] for row in found.curve] == [row[4] for row in uncut.curve]
    assert summarise(on_1_2_4_3_ranks / "run").state == "finished"


def test_ranks_with_different_settings_are_refused_with_the_difference(tiny: TinyRun, tmp_path: Path):
    """Even where the difference is the mesh, which the ranks would build together."""
    odd = {1: ["optimizer.learning_rate=0.01", "parallel.dp_shard=1", "parallel.dp_replicate=2"]}
    command = ("train", tiny.config(tmp_path))
    for ended in run_on_ranks(2, *command, folder=tmp_path, arguments_by_rank=odd):
        assert ended.code == 1
        assert "`optimizer.learning_rate` is `0.003` on rank 0, `0.01` on rank 1" in ended.err
        assert "`parallel.dp_replicate` is " in ended.err
        assert "step 1" not in ended.err
    assert not (tmp_path / "run").exists()
