"""The picture of the funnel: a panel for each source, a pair of bars for each stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from criadero.corpus.funnel import SourceFunnel, StageFunnel
from criadero.errors import DataError
from criadero.report.funnel import describe_stage, draw_funnel

WIKI = SourceFunnel(
    "wikipedia",
    (
        StageFunnel("read", 100, 98, 1000, 1000, 0, {"bad_xml": 2}),
        StageFunnel("clean", 98, 50, 1000, 3000, 50, {"a": 20, "b": 15, "c": 8, "d": 3, "e": 2}),
    ),
)


def test_the_picture_is_a_png_that_grows_with_what_it_shows(tmp_path: Path) -> None:
    one = draw_funnel([WIKI], tmp_path / "one.png")
    three = draw_funnel(
        [WIKI, SourceFunnel("books", WIKI.stages), SourceFunnel("empty", ())], tmp_path / "3.png"
    )
    sizes = []
    for path in (one, three):
        data = path.read_bytes()
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        sizes.append((int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")))
    assert sizes[0][0] == sizes[1][0]
    assert sizes[0][1] < sizes[1][1]


def test_a_stage_is_described_by_what_is_left_and_the_most_frequent_reasons() -> None:
    assert describe_stage(WIKI.stages[0]) == "98  (−2 bad_xml)"
    assert describe_stage(WIKI.stages[1]) == "50  (−20 a, −15 b, −8 c, 2 more reasons)"
    assert describe_stage(StageFunnel("x", 1, 1, 1, 1)) == "1"


def test_nothing_to_draw_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no source with documents"):
        draw_funnel([SourceFunnel("empty", ())], tmp_path / "none.png")
    assert not list(tmp_path.iterdir())
