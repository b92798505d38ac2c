"""Recipes: what they include, where their paths lead, and every fault of all parts in one message."""

from __future__ import annotations

from pathlib import Path

import pytest

from criadero import config as configuration
from criadero.corpus.config import KINDS, load_recipe, own_settings
from criadero.corpus.sources.plain import TextConfig
from criadero.errors import ConfigError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def faults(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_recipe(path, overrides)
    return [line.removeprefix("  - ") for line in str(caught.value).splitlines()[1:]]


def test_paths_are_relative_to_the_file_they_stand_in(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(
        tmp_path / "recipes/one.toml", '[sources.one]\nkind = "text"\ninputs = ["raw/*.txt", "https://x/y"]'
    )
    write(
        tmp_path / "recipes/deep/all.toml",
        'include = ["../one.toml"]\n[sources.two]\nkind = "text"\ninputs = ["a", "/abs/b"]\n'
        '[decontaminate]\nbenchmarks = "sets"\n[mixture]\ntokenizer = "tok"\n',
    )
    config = load_recipe(Path("recipes/deep/all.toml"), ["sources.two.near_duplicates.bands=7"])
    deep = tmp_path / "recipes/deep"
    assert config.sources["one"].inputs == (str(tmp_path / "recipes/raw/*.txt"), "https://x/y")
    assert config.sources["two"].inputs == (str(deep / "a"), "/abs/b")
    assert config.decontaminate is not None
    assert config.decontaminate.benchmarks == deep / "sets"
    assert config.mixture.tokenizer == deep / "tok"
    near = config.sources["two"].near_duplicates
    assert near is not None
    assert near.bands == 7
    given = load_recipe(Path("recipes/deep/all.toml"), ['sources.two.inputs=["here.txt"]'])
    assert given.sources["two"].inputs == (str(tmp_path / "here.txt"),)


def test_what_includes_wins_over_what_is_included(tmp_path: Path) -> None:
    write(
        tmp_path / "one.toml", '[sources.one]\nkind = "text"\ninputs = ["a"]\nids = "place"\nlicence = "MIT"'
    )
    path = write(tmp_path / "all.toml", 'include = ["one.toml"]\n[sources.one]\nlicence = "BSD"')
    source = load_recipe(path).sources["one"]
    assert (source.licence, own_settings(source)) == ("BSD", TextConfig(ids="place"))


def test_false_leaves_out_a_step_and_is_no_value_elsewhere(tmp_path: Path) -> None:
    text = '[sources.one]\nkind = "text"\ninputs = ["a"]\nnear_duplicates = '
    assert load_recipe(write(tmp_path / "a.toml", text + "false")).sources["one"].near_duplicates is None
    assert load_recipe(write(tmp_path / "a.toml", text + "{}")).sources["one"].near_duplicates is not None
    assert faults(write(tmp_path / "a.toml", text + "{bands = false}")) != []
    assert faults(write(tmp_path / "a.toml", text + "false\nids = false")) != []


def test_the_resolved_recipe_gives_itself_back(tmp_path: Path) -> None:
    text = '[sources.one]\nkind = "text"\ninputs = ["a"]\nids = "place"\n[mixture]\nweights = {one = 2}'
    config = load_recipe(write(tmp_path / "a.toml", text))
    configuration.save(config, tmp_path / "saved.toml")
    assert load_recipe(tmp_path / "saved.toml") == config


def test_every_fault_of_every_part_is_reported_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path / "bad.toml",
        """
        sourcs = 1
        [sources.one]
        kind = "txet"
        inputs = ["a"]
        [sources.two]
        kind = "text"
        id = "place"
        [sources.three]
        inputs = ["a"]
        [mixture]
        weight = {one = 1}
        [engine]
        memory = 3
        """,
    )
    assert set(faults(path)) == {
        "`sources.one.kind` is 'txet', did you mean `text`?",
        "`sources.three.kind` is missing: known are " + ", ".join(KINDS),
        "`sources.two.inputs` is missing",
        "unknown key `engine.memory`, did you mean `memory_bytes`?",
        "unknown key `mixture.weight`, did you mean `weights`?",
        "unknown key `sources.two.id`, did you mean `ids`?",
        "unknown key `sourcs`, did you mean `sources`?",
    }


@pytest.mark.parametrize(
    ("mixture", "words"),
    [
        ("{one = 1, tow = 2}", "names tow, which is no source"),
        ("{one = 1}", "without: two"),
        ("{one = -1, two = 2}", "a weight is 0 or more; not so: one"),
        ("{one = 0, two = 0}", "every weight is 0"),
        ("{one = nan, two = 1}", "a weight is 0 or more; not so: one"),
    ],
)
def test_weights_fit_the_sources(tmp_path: Path, mixture: str, words: str) -> None:
    sources = "".join(f'[sources.{name}]\nkind = "text"\ninputs = ["a"]\n' for name in ("one", "two"))
    found = faults(write(tmp_path / "a.toml", f"{sources}[mixture]\nweights = {mixture}"))
    assert [words in fault for fault in found].count(True) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('include = ["a.toml"]', "includes itself"),
        ('include = "b.toml"', "expected a list of files"),
        ('include = ["absent.toml"]', "does not exist"),
        ("sources = 3", "`sources`"),
        ("[sources]\nx = 1", "expected a table"),
        ("", "`sources` is missing"),
        ('[sources."../x"]\nkind = "text"\ninputs = ["a"]', "must be letters"),
        ('[sources.x]\nkind = "text"\ninputs = []', "`sources.x.inputs`"),
        ('[sources.x]\nkind = ["text"]\ninputs = ["a"]', "`sources.x.kind` is .'text'."),
        ('[sources.x]\nkind = "text"\ninputs = [1]', r"`sources.x.inputs.0` is 1"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_recipe(write(tmp_path / "a.toml", text))


def test_two_includes_cannot_both_define_a_source(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / f"{name}.toml", '[sources.same]\nkind = "text"\ninputs = ["a"]')
    path = write(tmp_path / "all.toml", 'include = ["one.toml", "two.toml"]')
    with pytest.raises(ConfigError, match=r"`same` is a source of `two\.toml` and of an earlier include"):
        load_recipe(path)
