"""What README.md tells people to type runs, in its order, at toy size."""

from __future__ import annotations

import bz2
import json
import re
import shutil

import pytest

from criadero.corpus.config import load_recipe
from criadero.corpus.mixture import PAPER_MIXTURE
from criadero.model.presets import num_parameters, preset
from criadero.runs import summarise
from documented import EXPLAINED, REPLACED, ROOT, Place, blocks, commands, needs_network
from tiny_run import TinyRun

README = ROOT / "README.md"
TUTORIAL = ROOT / "docs" / "tutorial" / "your-own-text.md"
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("documented"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny: TinyRun) -> Place:
    return Place.make(tmp_path_factory.mktemp("place"), tiny)


def test_every_command_of_the_readme_runs(place: Place) -> None:
    outputs = {}
    for command in [command for command in commands(README) if not needs_network(command)]:
        done = place.run(command, stdin="the old mill\n")
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        outputs[command.removeprefix("criadero ")] = done.stdout
    (listed,) = (text for command, text in outputs.items() if command.startswith("runs"))
    (shown,) = (text for command, text in outputs.items() if command.startswith("shards show"))
    (built,) = (text for command, text in outputs.items() if command.startswith("shards build"))
    (talked,) = (text for command, text in outputs.items() if command.startswith("chat"))
    (planned,) = (text for command, text in outputs.items() if "--fake-world-size 2048" in command)
    assert "demo" in listed
    assert "65,285,660,672" in planned
    assert "=== sample 3" in shown
    assert "tokens" in built
    assert talked.strip()
    assert "kept in documents/wikipedia" in outputs[f"corpus explain data/corpus {EXPLAINED}"]
    assert "bits per byte" in outputs["ngram score data/books.ngram my-texts"]
    written = [f"models/from-{form}/model.safetensors" for form in ("huggingface", "meta", "gguf")]
    written += ["models/demo/README.md", "models/demo.gguf"]
    drawn = ["data/corpus/card.md", "data/funnel.png"]
    models = [*written, *drawn, "runs/laptop/model/config.json", "runs/two-ranks/model/config.json"]
    assert [path for path in models if not (place.folder / path).is_file()] == []
    ranks = json.loads((place.folder / "runs/two-ranks/checkpoints/step-00000004/manifest.json").read_text())
    assert ranks["world_size"] == 2


@pytest.mark.network
def test_the_commands_of_the_readme_that_fetch_run(place: Place) -> None:
    for command in filter(needs_network, commands(README)):
        done = place.run(command)
        if "cannot be fetched" in done.stderr:
            pytest.skip(f"no network: {done.stderr}")
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert (place.folder / "data/benchmarks/humaneval.jsonl").is_file()
    assert (place.folder / "data/benchmarks/crows_pairs.jsonl").is_file()
    assert (place.folder / "evaluations/demo/results.json").is_file()
    assert list(load_recipe(place.folder / "data/open/recipe.toml").sources) == ["conversations"]


def test_the_page_that_is_explained_is_in_the_samples() -> None:
    (dump,) = (ROOT / "samples" / "raw" / "wikipedia").glob("enwiki*.bz2")
    with bz2.open(dump, "rt") as stream:
        assert re.search(rf"<id>{EXPLAINED.removeprefix('en:')}</id>", stream.read(200_000))
    assert f"criadero corpus explain data/corpus {EXPLAINED}" in README.read_text()
    sources = load_recipe(ROOT / "samples" / "recipe.toml").sources
    assert set(PAPER_MIXTURE) == set(sources)
    assert any(dump.match(pattern) for pattern in sources["wikipedia"].inputs)


def test_the_python_example_of_the_readme_runs(place: Place) -> None:
    (example,) = blocks(README, "python")
    done = place.run_python(example)
    assert done.returncode == 0, done.stderr
    trained, completion = done.stdout.strip().splitlines()
    assert trained.endswith("training tokens")
    assert set(json.loads(completion)) == {"text", "ended by"}


def test_every_replacement_is_of_something_that_is_written_down() -> None:
    written = "\n".join([*commands(README), *commands(TUTORIAL)])
    assert [part for part in list(REPLACED) if part not in written] == []


def test_the_two_make_commands_are_those_of_the_makefile() -> None:
    text, makefile = README.read_text(), (ROOT / "Makefile").read_text()
    for target in ("demo", "test"):
        assert f"    make {target} " in text
        assert f"\n{target}:" in makefile


def test_the_tree_names_every_folder_and_package() -> None:
    text = README.read_text()
    packages = {
        path.name for path in (ROOT / "src" / "criadero").iterdir() if (path / "__init__.py").is_file()
    }
    folders = {"configs", "samples", "benchmarks", "docs", "tests"}
    assert "[configs/corpus/]" in text
    assert [
        name for name in sorted(packages | folders) if f"`{name}/`" not in text and f"[{name}/]" not in text
    ] == []
    modules = {path.name for path in (ROOT / "src" / "criadero").glob("[a-z]*.py")}
    assert [name for name in sorted(modules) if f"`{name}`" not in text] == []


def test_sizes_named_are_those_of_samples_and_presets() -> None:
    sources = json.loads((ROOT / "samples" / "raw" / "books" / "manifest.json").read_text())["sources"]
    text = " ".join(README.read_text().split())
    assert f"{sum(source['text_bytes'] for source in sources) / 1e6:.0f} MB of public-domain prose" in text
    assert f"{num_parameters(preset('demo')) / 1e6:.1f} million parameters" in text
    assert f"{num_parameters(preset('laptop')) / 1e6:.0f} million parameters" in text


def test_every_command_of_the_tutorial_runs(place: Place) -> None:
    for path in ("data", "runs/laptop"):
        shutil.rmtree(place.folder / path, ignore_errors=True)
    outputs = []
    for command in commands(TUTORIAL):
        done = place.run(command, stdin="the old mill\n")
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        outputs.append(done.stdout)
    assert summarise(place.folder / "runs/laptop").step == 6
    assert "=== sample 16" in outputs[-1]
