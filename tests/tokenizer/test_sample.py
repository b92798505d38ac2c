"""Sampling lines: bounded, uniform, weighted, whole; long lines are cut where it is safe."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criadero.errors import TokenizerError
from criadero.tokenizer.sample import Sample, cut_line, sample_lines


def sample(sources: dict[str, list[str]], budget: int, **options: object) -> Sample:
    given_options = {"weights": None, "max_line_bytes": 4192, "seed": 0} | options
    return sample_lines(sources, budget, **given_options)  # type: ignore[arg-type]


def test_everything_is_kept_in_order_within_the_budget() -> None:
    found = sample({"a": ["one\ntwo\n\n", "three"], "b": ["four"]}, 1000)
    assert found.lines == ["one", "two", "three", "four"]
    assert found.sources["a"].read_bytes == found.sources["a"].kept_bytes == 11


def test_budget_holds_and_every_line_has_the_same_chance() -> None:
    lines = [f"{i:04d}" for i in range(1000)]
    kept = [line for seed in range(50) for line in sample({"a": ["\n".join(lines)]}, 400, seed=seed).lines]
    assert len(kept) == 50 * 100
    first_half = sum(line < "0500" for line in kept) / len(kept)
    assert 0.46 < first_half < 0.54  # 5,000 draws: 5.6 standard deviations


def test_memory_is_bounded_by_the_budget_not_the_text() -> None:
    def endless() -> Iterator[str]:
        for i in range(20_000):
            yield f"{i:099d}\n"

    found = sample_lines({"a": endless()}, 5_000, weights=None, max_line_bytes=4192, seed=0)
    assert sum(len(line) for line in found.lines) <= 5_000
    assert found.sources["a"].read_bytes == 20_000 * 99


def test_weights_divide_the_budget_whatever_the_sizes() -> None:
    big, small = ["x" * 9 + f"\n{i:09d}" for i in range(5000)], [f"{i:09d}" for i in range(2000)]
    found = sample({"big": big, "small": small}, 9_000, weights={"big": 1.0, "small": 3.0})
    assert found.sources["big"].kept_bytes == pytest.approx(2_250, abs=20)
    assert found.sources["small"].kept_bytes == pytest.approx(6_750, abs=20)


def test_weights_for_other_sources_are_refused() -> None:
    with pytest.raises(TokenizerError, match=r"\['a', 'c'\].*\['a', 'b'\]"):
        sample({"a": ["x"], "b": ["y"]}, 100, weights={"a": 1.0, "c": 1.0})


@given(st.text(max_size=200), st.integers(4, 40))
def test_cut_lines_fit_and_lose_only_the_blank_at_the_cut(line: str, max_bytes: int) -> None:
    line = line.replace("\n", "")
    pieces = cut_line(line, max_bytes)
    assert all(len(piece.encode()) <= max_bytes for piece in pieces)
    assert "".join(pieces).replace(" ", "") == line.replace(" ", "")
    assert len(line) - len("".join(pieces)) <= len(pieces) - 1


def test_a_line_without_blanks_is_cut_between_characters() -> None:
    assert cut_line("ééééé", 4) == ["éé", "éé", "é"]
    assert cut_line("ab cd ef", 6) == ["ab cd", "ef"]
    assert cut_line("abc", 3) == ["abc"]
