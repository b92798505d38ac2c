"""The funnel of a corpus as a PNG: for every source, what is left after each stage and why the rest went."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from criadero import files
from criadero.corpus.funnel import SourceFunnel, StageFunnel
from criadero.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_REASONS_SHOWN = 3
_INCHES_PER_BAR = 0.42


def draw_funnel(funnels: Sequence[SourceFunnel], path: Path) -> Path:
    """Draw one panel for each source, a pair of bars for each stage, and return `path`.

    The bars are the share of documents and of characters that is left; beside them stand the numbers and the
    most frequent reasons.

    Raises:
        DataError: there is no source to draw.
    """
    from matplotlib.figure import Figure

    shown = [funnel for funnel in funnels if funnel.stages]
    if not shown:
        raise DataError("there is no source with documents to draw")
    heights = [len(funnel.stages) + 1.2 for funnel in shown]
    figure = Figure(figsize=(11, 0.6 + _INCHES_PER_BAR * sum(heights)), dpi=120, layout="constrained")
    panels = figure.subplots(len(shown), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axes, funnel in zip(panels, shown, strict=True):
        _draw_source(axes, funnel)
    panels[-1].set_xlabel("left of what was read")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    with files.atomic_write(path) as stream:
        stream.write(image.getvalue())
    return path


def _draw_source(axes: Axes, funnel: SourceFunnel) -> None:
    places = range(len(funnel.stages))
    documents = [_share(stage.documents_out, funnel.documents_in) for stage in funnel.stages]
    characters = [_share(stage.characters_out, funnel.characters_in) for stage in funnel.stages]
    axes.barh([p - 0.19 for p in places], documents, height=0.36, color="tab:blue", label="documents")
    axes.barh([p + 0.19 for p in places], characters, height=0.36, color="0.75", label="characters")
    for place, stage in enumerate(funnel.stages):
        longest = min(1.0, max(documents[place], characters[place]))
        axes.text(longest + 0.01, place, describe_stage(stage), va="center", fontsize=8)
    axes.set_yticks(list(places), [stage.name for stage in funnel.stages], fontsize=9)
    axes.set_xlim(0, 1.75)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "25%", "50%", "75%", "100%"], fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(
        f"{funnel.source}: {funnel.documents_out:,} of {funnel.documents_in:,} documents, "
        f"{funnel.characters_out:,} of {funnel.characters_in:,} characters",
        loc="left",
        fontsize=10,
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def describe_stage(stage: StageFunnel) -> str:
    """Return how many are left and why others went: `120  (-30 too_short, -2 bad_id)`."""
    reasons = [f"−{count:,} {reason}" for reason, count in stage.dropped.items()]
    more = len(reasons) - _REASONS_SHOWN
    listed = reasons[:_REASONS_SHOWN] + ([f"{more} more reasons"] if more > 0 else [])
    return f"{stage.documents_out:,}" + (f"  ({', '.join(listed)})" if listed else "")
