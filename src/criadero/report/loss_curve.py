"""The loss curve of a run as a PNG, from its metrics.jsonl (the paper's Figure 1 for one's own model)."""

from __future__ import annotations

import io
from pathlib import Path

from criadero import files
from criadero.errors import RunError
from criadero.runs import METRICS, read_metrics


def draw_loss_curve(run_folder: Path) -> Path:
    """Draw training and held-out loss over tokens into `loss.png` of the run folder; return its path.

    Raises:
        RunError: the run has no metrics.
    """
    from matplotlib.figure import Figure

    tokens_at, losses, heldout = {}, [], []
    for row in read_metrics(run_folder / METRICS):
        if "tokens" in row:
            tokens_at[row["step"]] = row["tokens"]
        if row.get("loss") is not None:  # null where it was not finite
            losses.append((row["tokens"], row["loss"]))
        if row.get("heldout_loss") is not None:
            heldout.append((tokens_at.get(row["step"], 0), row["heldout_loss"]))
    if not losses:
        raise RunError(f"`{run_folder}` has no metrics to draw")
    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(*zip(*losses, strict=True), color="0.75", linewidth=0.8, label="training")
    axes.plot(*zip(*_smooth(losses), strict=True), color="tab:blue", label="training, smoothed")
    if heldout:
        axes.plot(*zip(*heldout, strict=True), "o-", color="tab:orange", markersize=4, label="held-out")
    axes.set(xlabel="tokens", ylabel="loss, nats per token", title=run_folder.name)
    axes.grid(alpha=0.3)
    axes.legend()
    image = io.BytesIO()
    figure.savefig(image, format="png")
    path = run_folder / "loss.png"
    with files.atomic_write(path) as stream:
        stream.write(image.getvalue())
    return path


def _smooth(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Exponential mean over about 2% of the points."""
    keep = 1 - 1 / max(1.0, len(points) / 50)
    smooth, mean = [], points[0][1]
    for tokens, loss in points:
        mean = keep * mean + (1 - keep) * loss
        smooth.append((tokens, mean))
    return smooth
