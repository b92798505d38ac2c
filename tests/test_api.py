"""The public Python functions: there, documented, the command line's verbs, and enough for a whole walk."""

from __future__ import annotations

import inspect
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import criadero
from criadero import api
from criadero.errors import ConfigError, FormatError
from criadero.formats.load import load_model
from tiny_run import TinyRun

ROOT = Path(__file__).parent.parent
FUNCTIONS = [name for name in criadero.__all__ if name != "__version__"]


def test_the_package_offers_what_the_module_of_functions_does():
    assert sorted(FUNCTIONS) == sorted(api.__all__)
    assert set(FUNCTIONS) <= set(dir(criadero))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_is_documented_and_typed(name: str):
    function = getattr(criadero, name)
    assert inspect.isfunction(function)
    assert len(inspect.getdoc(function)) > 40
    signature = inspect.signature(function)
    assert signature.return_annotation is not signature.empty
    assert all(p.annotation is not p.empty for p in signature.parameters.values())


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="trian"):
        criadero.trian  # noqa: B018


SHADOWED = """
import criadero
from criadero.train.config import RunConfig
from criadero.generate import engine
import criadero.train.loop
print(criadero.train.__name__, criadero.generate.__name__)
criadero.load_model
from criadero import train, generate
print(train.__module__, generate.__module__)
"""


def test_functions_are_not_hidden_by_the_subpackages_of_the_same_name():
    done = subprocess.run([sys.executable, "-c", SHADOWED], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["train generate", "criadero.api criadero.api"]


def test_a_text_becomes_a_model_that_continues_it(tmp_path: Path, capsys):
    """examples/train_from_python.py, some seconds on one core, on a text of 11 kB."""
    example = runpy.run_path(str(ROOT / "examples" / "train_from_python.py"))
    text = example["main"](ROOT / "LICENSE", tmp_path / "out")
    assert text.strip()
    counted, scored = capsys.readouterr().out.splitlines()
    assert counted.endswith("training tokens")
    # An untrained model of 384 tokens needs about 5 bits per byte.
    assert float(scored.split()[2]) < 4.0
    assert load_model(tmp_path / "out" / "run" / "model").config.vocab_size == 384


def test_training_takes_a_ready_config_or_a_file_with_overrides(tiny: TinyRun, tmp_path: Path):
    result = criadero.train(tiny.run_config(tmp_path / "a", steps=1))
    assert result.state.step == 1
    config = tiny.config(tmp_path / "b", steps=5)
    assert criadero.train(str(config), "train.tokens=128").state.step == 1


def test_settings_given_by_name_are_checked_as_everywhere(tmp_path: Path):
    with pytest.raises(ConfigError, match="unknown key `vocabsize`, did you mean `vocab_size`"):
        criadero.train_tokenizer({"a": ["text"]}, tmp_path / "x", vocabsize=300)
    with pytest.raises(FormatError, match="does not exist"):
        criadero.generate(tmp_path / "nothing", "Once", max_tokens=3)
