"""Every file in configs/ loads, dry-runs and survives being saved; the paper's runs are the paper's."""

from __future__ import annotations

from pathlib import Path

import pytest

from criadero import config as configuration
from criadero.corpus.config import KINDS, load_recipe
from criadero.corpus.mixture import PAPER_MIXTURE, PAPER_TOKENS
from criadero.model.presets import num_parameters
from criadero.train.config import RunConfig
from criadero.train.estimate import estimate

CONFIGS = Path(__file__).parent.parent / "configs"
TRAINING = sorted(path for path in CONFIGS.glob("*.toml") if "[train]" in path.read_text())
CORPUS = sorted(CONFIGS.glob("corpus/*.toml"))


def test_every_config_is_of_a_kind_that_is_tested_here():
    assert sorted(CONFIGS.rglob("*.toml")) == sorted(TRAINING + CORPUS)


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)
def test_a_config_loads_dry_runs_and_loads_back(path: Path, tmp_path: Path):
    config = configuration.load(RunConfig, path)
    cost = estimate(config)
    assert cost.parameters == num_parameters(config.model)
    assert cost.total_steps >= 1
    assert cost.memory.states * cost.ranks >= 16 * cost.parameters
    assert config.run.folder == Path("runs") / path.stem
    configuration.save(config, tmp_path / "saved.toml")
    assert configuration.load(RunConfig, tmp_path / "saved.toml") == config


@pytest.mark.parametrize(
    ("name", "parameters", "rate", "tokens"),
    [
        ("7b", 6_738_415_616, 3e-4, 10**12),
        ("13b", 13_015_864_320, 3e-4, 10**12),
        ("33b", 32_528_943_616, 1.5e-4, 1_400 * 10**9),
        ("65b", 65_285_660_672, 1.5e-4, 1_400 * 10**9),
    ],
)
def test_the_papers_runs_are_table_2_with_the_mixture_of_table_1(name, parameters, rate, tokens):
    config = configuration.load(RunConfig, CONFIGS / f"llama-{name}.toml")
    assert num_parameters(config.model) == parameters
    assert config.optimizer.learning_rate == rate
    assert config.train.tokens == tokens
    assert config.train.batch_tokens == 4 * 2**20
    weights = {source.name: source.weight for source in config.data.sources}
    assert weights == {
        "commoncrawl": 0.67,
        "c4": 0.15,
        "github": 0.045,
        "wikipedia": 0.045,
        "books": 0.045,
        "arxiv": 0.025,
        "stackexchange": 0.02,
    }
    assert sum(weights.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_a_corpus_recipe_loads_and_loads_back(path: Path, tmp_path: Path):
    config = load_recipe(path)
    for source in config.sources.values():
        assert source.description
        assert source.url
        assert source.licence
    configuration.save(config, tmp_path / "saved.toml")
    assert load_recipe(tmp_path / "saved.toml") == config


def test_every_kind_of_raw_source_has_a_recipe_of_its_name():
    assert {path.stem for path in CORPUS} == set(KINDS) - {"text"} | {"llama"}


def test_the_papers_mixture_is_table_1():
    config = load_recipe(CONFIGS / "corpus" / "llama.toml")
    assert config.mixture.tokens == PAPER_TOKENS
    assert set(config.sources) == set(PAPER_MIXTURE)
    assert {name: weight / 100 for name, weight in config.mixture.weights.items()} == pytest.approx(
        {name: row.share for name, row in PAPER_MIXTURE.items()}
    )
