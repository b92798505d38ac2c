"""The public Python functions: there, documented, the command line's verbs, and enough for a whole walk."""

from __future__ import annotations

import inspect
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from criadero import api
from criadero.errors import ConfigError, FormatError, UsageError
from criadero.formats.load import load_tokenizer
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


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    lines = [json.dumps({"id": f"d{n}", "text": f"The mill of number {n}. " * 9}) for n in range(20)]
    (tmp_path / "in.jsonl").write_text("\n".join([*lines, "broken"]))
    path = tmp_path / "recipe.toml"
    path.write_text('[sources.mine]\nkind = "text"\ninputs = ["*.jsonl"]\n')
    return path


def test_raw_data_become_a_corpus_and_that_becomes_shards(recipe: Path, tiny: TinyRun, tmp_path: Path):
    counted = f"mixture.tokenizer={tiny.tokenizer}"
    corpus = api.build_corpus(
        str(recipe), str(tmp_path / "out"), counted, "sources.mine.ids=place", workers=0
    )
    (funnel,) = corpus.funnels
    assert (funnel.documents_in, funnel.documents_out, funnel.dropped) == (21, 20, {"not_json": 1})
    assert corpus.mixture.token_count == "counted"
    assert api.build_corpus(
        recipe, tmp_path / "out", counted, "sources.mine.ids=place", workers=0
    ).was_finished
    (tokens,) = (row.tokens for row in corpus.mixture.rows)
    tokenizer = load_tokenizer(tiny.tokenizer)
    shards = api.build_shards([corpus.folder / "documents" / "mine"], tokenizer, tmp_path / "shards")
    assert sum(split.num_tokens for split in shards.splits.values()) == tokens


def test_without_its_libraries_a_corpus_says_what_to_install(recipe: Path, tmp_path: Path):
    program = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from criadero import api, errors\n"
        "try:\n    api.build_corpus(sys.argv[1], sys.argv[2], workers=0)\n"
        "except errors.DataError as problem:\n    print(problem)"
    )
    command = [sys.executable, "-c", program, str(recipe), str(tmp_path / "out")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "needs the library `pyarrow`" in said
    assert "pip install 'criadero[corpus]'" in said


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
    assert api.export_model(str(model), "gguf", str(tmp_path / "c.gguf")).dtype == "f16"
    assert api.load_model(tmp_path / "c.gguf").config == api.load_model(model).config
    with pytest.raises(UsageError, match="`onnx` is not known"):
        api.export_model(model, "onnx", tmp_path / "d")
