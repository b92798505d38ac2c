"""The mixture: the paper's Table 1 worked backwards and forwards, and what is refused."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from criadero.corpus.mixture import (
    PAPER_MIXTURE,
    PAPER_TOKENS,
    MixtureConfig,
    SourceSize,
    count_tokens,
    data_sources,
    measure,
    mix,
    mixture_values,
    read_mixture,
)
from criadero.errors import DataError
from shards.fake_tokenizer import ByteTokenizer

# Billions of tokens each source must have held: share * 1.4T / epochs, rounded by hand.
UNIQUE = {
    "commoncrawl": 853,
    "c4": 198,
    "github": 98,
    "wikipedia": 26,
    "books": 28,
    "arxiv": 33,
    "stackexchange": 27,
}


def test_the_papers_table_implies_how_many_tokens_each_source_held() -> None:
    assert {name: round(row.unique_tokens / 1e9) for name, row in PAPER_MIXTURE.items()} == UNIQUE
    assert sum(row.share for row in PAPER_MIXTURE.values()) == pytest.approx(1.0)


def test_sources_as_large_as_the_papers_give_table_1() -> None:
    sizes = [
        SourceSize(name, 1, PAPER_MIXTURE[name].disk_bytes, billions * 10**9)
        for name, billions in UNIQUE.items()
    ]
    weights = {"commoncrawl": 67, "c4": 15, "github": 4.5, "wikipedia": 4.5, "books": 4.5, "arxiv": 2.5,
               "stackexchange": 2}  # fmt: skip
    mixture = mix(sizes, MixtureConfig(weights=weights, tokens=PAPER_TOKENS, max_epochs=2.5))
    assert mixture.token_count == "counted"
    for row in mixture.rows:
        paper = PAPER_MIXTURE[row.source]
        assert row.share == pytest.approx(paper.share)
        assert row.epochs == pytest.approx(paper.epochs, rel=0.02)  # the paper rounds to three digits
        assert row.disk_bytes == paper.disk_bytes


@given(
    st.dictionaries(
        st.sampled_from("abcdef"), st.tuples(st.integers(1, 10**12), st.floats(0.01, 100)), min_size=1
    ),
    st.integers(1, 10**13),
)
def test_what_each_source_gives_adds_up_to_the_training(
    held: dict[str, tuple[int, float]], budget: int
) -> None:
    sizes = [SourceSize(name, 1, tokens, tokens) for name, (tokens, _) in held.items()]
    weights = {name: weight for name, (_, weight) in held.items()}
    mixture = mix(sizes, MixtureConfig(weights=weights, tokens=budget))
    assert sum(row.epochs * row.tokens for row in mixture.rows) == pytest.approx(budget)
    assert sum(row.share for row in mixture.rows) == pytest.approx(1)


def test_without_weights_every_source_is_seen_once() -> None:
    mixture = mix([SourceSize("a", 1, 400), SourceSize("b", 1, 1200), SourceSize("c", 0, 0)], MixtureConfig())
    assert [(row.share, row.epochs, row.tokens) for row in mixture.rows] == [
        (0.25, 1.0, 100),
        (0.75, 1.0, 300),
        (0.0, 0.0, 0),
    ]
    assert mixture.token_count == "estimated"


def test_too_many_epochs_fail_and_name_every_source_and_what_would_fit() -> None:
    sizes = [SourceSize("a", 1, 1, 100), SourceSize("b", 1, 1, 50), SourceSize("c", 1, 1, 10_000)]
    weights = {"a": 1.0, "b": 1.0, "c": 2.0}
    config = MixtureConfig(weights=weights, tokens=1000, max_epochs=2)
    with pytest.raises(DataError) as caught:
        mix(sizes, config)
    assert "`a` 2.50 times, `b` 5.00 times" in str(caught.value)
    assert "`c`" not in str(caught.value)
    assert "train on 400 tokens" in str(caught.value)
    assert mix(sizes, MixtureConfig(weights=weights, tokens=400, max_epochs=2)).rows[1].epochs == 2


def test_a_source_with_weight_and_without_text_fails_and_one_of_weight_0_does_not() -> None:
    sizes = [SourceSize("a", 0, 0), SourceSize("b", 3, 100)]
    with pytest.raises(DataError, match="drawn from `a`: no document is left"):
        mix(sizes, MixtureConfig(weights={"a": 1, "b": 1}))
    rows = mix(sizes, MixtureConfig(weights={"a": 0, "b": 1})).rows
    assert [(row.share, row.epochs) for row in rows] == [(0, 0), (1, 1)]
    with pytest.raises(DataError, match="the corpus is empty"):
        mix([SourceSize("a", 0, 0)], MixtureConfig())


def test_the_lines_for_a_training_config_are_toml_without_sources_of_weight_0() -> None:
    sizes = [SourceSize("a", 1, 100), SourceSize("b", 1, 300), SourceSize("c", 1, 5)]
    mixture = mix(sizes, MixtureConfig(weights={"a": 1, "b": 3, "c": 0}))
    assert tomllib.loads(data_sources(mixture, Path("out/shards"))) == {
        "data": {
            "sources": [
                {"name": "a", "path": "out/shards/a", "weight": 0.25},
                {"name": "b", "path": "out/shards/b", "weight": 0.75},
            ]
        }
    }


def test_the_table_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    mixture = mix([SourceSize("a", 1, 100), SourceSize("b", 1, 300)], MixtureConfig())
    (tmp_path / "mixture.json").write_text(json.dumps(mixture_values(mixture)))
    assert read_mixture(tmp_path / "mixture.json") == mixture
    (tmp_path / "mixture.json").write_text('{"sources": [{}]}')
    with pytest.raises(DataError, match="is no mixture"):
        read_mixture(tmp_path / "mixture.json")


def test_size_is_in_bytes_of_utf8_and_tokens_are_counted_as_shards_store_them(tmp_path: Path) -> None:
    texts = ["aé", "漢🦙", "", "x" * 10]
    table = pa.table({"id": ["1", "2", "3", "4"], "text": texts, "source": ["s"] * 4})
    pq.write_table(table, tmp_path / "part-00000.parquet")
    text_bytes = sum(len(text.encode()) for text in texts)
    assert measure(tmp_path) == (4, text_bytes)
    # One token a byte, and an opening and a closing one around the three texts that are not empty.
    assert count_tokens(tmp_path, ByteTokenizer(), tick=lambda: None) == text_bytes + 6
    assert measure(tmp_path / "none") == (0, 0)
