"""First weights: a function of the seed, or those of another model; and the device a config names."""

from __future__ import annotations

import pytest
import torch

from criadero.errors import ConfigError, ResourceError
from criadero.formats.huggingface import save_model
from criadero.model.init import initialize
from criadero.model.transformer import Transformer
from criadero.tokenizer import tokenizer as tokenizers
from criadero.train import build
from criadero.train.build import build_model, choose_device
from tiny_run import TinyRun
from train.one_rank import one_rank


def built(config) -> dict[str, torch.Tensor]:
    with one_rank() as mesh:
        model = build_model(config, mesh)
        weights = {name: p.full_tensor().detach().clone() for name, p in model.named_parameters()}
        assert all(p.dtype == torch.float32 for p in model.parameters())
        del model
    return weights


def test_first_weights_are_those_of_an_unsharded_model_of_the_same_seed(tiny: TinyRun, tmp_path):
    config = tiny.run_config(tmp_path, "train.seed=5")
    model = Transformer(config.model)
    initialize(model, 5)
    for name, weight in built(config).items():
        assert torch.equal(weight, model.get_parameter(name)), name


def imported(tiny: TinyRun, config, folder):
    model = Transformer(config.model)
    initialize(model, 77)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    tokenizer = tokenizers.load(tiny.tokenizer)
    save_model(weights.items(), config.model, tokenizer, folder, dtype=torch.float32, inputs={})
    return weights


def test_pretraining_may_start_from_the_weights_of_another_model(tiny: TinyRun, tmp_path):
    config = tiny.run_config(tmp_path)
    weights = imported(tiny, config, tmp_path / "other")
    started = built(tiny.run_config(tmp_path, f"initial_model={tmp_path / 'other'}"))
    assert started.keys() == weights.keys()
    for name, weight in weights.items():
        assert torch.equal(started[name], weight), name


def test_weights_of_another_shape_are_refused_with_the_settings_that_fit(tiny: TinyRun, tmp_path):
    imported(tiny, tiny.run_config(tmp_path), tmp_path / "other")
    config = tiny.run_config(tmp_path, f"initial_model={tmp_path / 'other'}", "model.hidden_dim=64")
    with pytest.raises(ConfigError, match=r"12 tensors differ") as problem:
        built(config)
    assert "'hidden_dim': 48" in problem.value.hint


def test_a_model_is_composed_in_this_order(tiny: TinyRun, tmp_path, monkeypatch):
    steps = ["share_products", "multiply_in_fp8", "recompute_layers", "compile_layers", "parallelize"]
    taken = []
    for step in steps:
        monkeypatch.setattr(build, step, lambda *_, _step=step, **__: taken.append(_step))
    monkeypatch.setattr(Transformer, "to_empty", lambda *_, **__: taken.append("to_empty"))
    monkeypatch.setattr(build, "initialize", lambda *_: taken.append("initialize"))
    settings = ["model.hidden_dim=64", "train.fp8=true", "train.device=auto", "train.recompute=paper"]
    with one_rank() as mesh:
        build_model(tiny.run_config(tmp_path, *settings, "train.compile=true", "model.num_heads=2"), mesh)
    assert taken == [*steps, "to_empty", "initialize"]


def test_cuda_is_refused_where_there_is_none_and_auto_takes_what_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ResourceError, match="cuda"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
    assert choose_device("cpu") == torch.device("cpu")
