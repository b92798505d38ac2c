"""The loss curve is a picture of what metrics.jsonl says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from criadero.errors import RunError
from criadero.report.loss_curve import draw_loss_curve

ORANGE, BLUE = (255, 127, 14), (31, 119, 180)


def write_metrics(folder: Path, *, heldout: bool = True, broken_step: int | None = None) -> None:
    rows = []
    for step in range(1, 81):
        loss = None if step == broken_step else 6.0 / step**0.5
        rows.append({"step": step, "loss": loss, "tokens": 1000 * step})
        if heldout and step % 20 == 0:
            rows.append({"step": step, "heldout_loss": 6.2 / step**0.5})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def count(path: Path, colour: tuple[int, int, int]) -> int:
    with Image.open(path) as image:
        assert image.format == "PNG"
        image.load()
        return sum(n for n, pixel in image.convert("RGB").getcolors(1 << 24) if pixel == colour)


def test_the_curve_is_a_png_with_the_heldout_line(tmp_path: Path):
    write_metrics(tmp_path)
    path = draw_loss_curve(tmp_path)
    assert path == tmp_path / "loss.png"
    assert count(path, BLUE) > 300
    assert count(path, ORANGE) > 300
    assert [p.name for p in tmp_path.iterdir() if "tmp" in p.name] == []


def test_without_heldout_scores_there_is_no_such_line(tmp_path: Path):
    write_metrics(tmp_path, heldout=False)
    path = draw_loss_curve(tmp_path)
    assert count(path, BLUE) > 300
    assert count(path, ORANGE) == 0


def test_a_step_without_a_finite_loss_leaves_the_rest_of_the_curve(tmp_path: Path):
    write_metrics(tmp_path)
    whole = count(draw_loss_curve(tmp_path), BLUE)
    write_metrics(tmp_path, broken_step=2)
    assert count(draw_loss_curve(tmp_path), BLUE) > 0.8 * whole


def test_a_single_step_can_be_drawn(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0, "tokens": 10}\n')
    assert count(draw_loss_curve(tmp_path), (255, 255, 255)) > 1000


def test_a_run_without_metrics_is_refused(tmp_path: Path):
    with pytest.raises(RunError, match="no metrics"):
        draw_loss_curve(tmp_path)
