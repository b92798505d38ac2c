"""The public Python functions: there, documented, the command line's verbs, and enough for a whole walk."""

from __future__ import annotations

import inspect
import runpy
from pathlib import Path

import pytest

from criadero import api
from criadero.errors import ConfigError, FormatError, UsageError
from tiny_run import TinyRun

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", api.__all__)
def test_every_public_function_is_documented_and_typed(name: str):
    function = getattr(api, name)
    assert inspect.isfunction(function)
    assert len(inspect.getdoc(function)) > 40
    signature = inspect.signature(function)
    assert signature.return_annotation is not signature.empty
    assert all(p.annotation is not p.empty for p in signature.parameters.values())


def test_a_text_becomes_a_model_that_continues_it(tmp_path: Path, capsys):
    """examples/train_from_python.py, some seconds on one core, on a text of 11 kB."""
    example = runpy.run_path(str(ROOT / "examples" / "train_from_python.py"))
    text = example["main"](ROOT / "LICENSE", tmp_path / "out")
    assert text.strip()
    counted, scored = capsys.readouterr().out.splitlines()
    assert counted.endswith("training tokens")
    # An untrained model of 384 tokens needs about 5 bits per byte.
    assert float(scored.split()[2]) < 4.0
    assert api.load_model(tmp_path / "out" / "run" / "model").config.vocab_size == 384


def test_training_takes_a_ready_config_or_a_file_with_overrides(tiny: TinyRun, tmp_path: Path):
    result = api.train(tiny.run_config(tmp_path / "a", steps=1))
    assert result.state.step == 1
    config = tiny.config(tmp_path / "b", steps=5)
    assert api.train(str(config), "train.tokens=128").state.step == 1


def test_settings_given_by_name_are_checked_as_everywhere(tmp_path: Path):
    with pytest.raises(ConfigError, match="unknown key `vocabsize`, did you mean `vocab_size`"):
        api.train_tokenizer({"a": ["text"]}, tmp_path / "x", vocabsize=300)
    with pytest.raises(FormatError, match="does not exist"):
        api.generate(tmp_path / "nothing", "Once", max_tokens=3)


def test_models_are_loaded_and_imported_by_path_and_dtype_name(tiny: TinyRun, tmp_path: Path):
    model = api.train(tiny.run_config(tmp_path / "a", steps=1)).model
    done = api.import_model(str(model), str(tmp_path / "b"), dtype="bfloat16")
    assert done.dtype == "bfloat16"
    assert api.load_model(str(tmp_path / "b")).model.norm.weight.dtype.is_floating_point
    with pytest.raises(UsageError, match="unknown dtype `fp8`"):
        api.load_model(tmp_path / "b", dtype="fp8")
