"""Held-out loss and bits per byte against a count by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributed.tensor import DTensor
from torch.nn import functional as F

from criadero.model.init import initialize
from criadero.model.transformer import Transformer
from criadero.parallel.parallelize import parallelize
from criadero.shards.config import DataConfig
from criadero.shards.read import ShardSet
from criadero.train.heldout import HeldOutScore, as_metrics, open_heldout, score_heldout, total
from tiny_run import TinyRun
from train.one_rank import one_rank


def data(tiny: TinyRun, *names: str) -> DataConfig:
    sources = [{"name": name, "path": str(tiny.shards)} for name in names]
    return DataConfig.model_validate({"sources": sources, "seq_len": 32})


def test_a_model_that_guesses_evenly_has_log_vocabulary_bits_a_token():
    score = HeldOutScore(loss_sum=50 * math.log(256), tokens=50, text_bytes=100)
    assert score.loss == pytest.approx(math.log(256))
    # 50 tokens of 8 bits for 100 bytes.
    assert score.bits_per_byte == pytest.approx(4.0)


def test_the_whole_weighs_sources_by_their_size():
    scores = {"a": HeldOutScore(30.0, 10, 40), "b": HeldOutScore(10.0, 30, 60)}
    assert total(scores) == HeldOutScore(40.0, 40, 100)
    metrics = as_metrics(scores)
    assert metrics["heldout_loss"] == 1.0
    assert metrics["heldout_bits_per_byte"] == pytest.approx(40 / math.log(2) / 100)
    assert metrics["heldout_bits_per_byte/a"] == pytest.approx(30 / math.log(2) / 40)
    assert set(as_metrics({"a": scores["a"]})) == {"heldout_loss", "heldout_bits_per_byte"}


def test_the_score_is_the_loss_of_every_heldout_token_once(tiny: TinyRun, tmp_path):
    config = tiny.run_config(tmp_path)
    model = Transformer(config.model)
    initialize(model, 3)
    shards = ShardSet(tiny.shards / "heldout")
    tokens = torch.from_numpy(shards.tokens(0, shards.num_tokens).astype("int64"))
    expected = naive_loss_sum(model, tokens, eos=2, seq_len=32)
    with one_rank() as mesh:
        parallelize(model, mesh, param_dtype=torch.float32)
        heldout = open_heldout(data(tiny, "a", "b"), max_tokens=None)
        scores = score_heldout(model, heldout, mesh=mesh, batch_sequences=3, chunk_tokens=10)
        assert model.training
        assert all(p.grad is None for p in model.parameters())
        del model
    assert list(scores) == ["a", "b"]
    for score in scores.values():
        assert score.tokens == shards.num_tokens
        assert score.text_bytes == shards.num_bytes
        assert score.loss_sum == pytest.approx(expected, rel=1e-6)


def naive_loss_sum(model: Transformer, tokens: torch.Tensor, *, eos: int, seq_len: int) -> float:
    """Windows one after the other, each from the token before its first target; no batches, no chunks."""
    stream = torch.cat([torch.tensor([eos]), tokens])
    loss = 0.0
    with torch.no_grad():
        for start in range(0, len(tokens), seq_len):
            window = stream[start : start + seq_len + 1]
            logits = model(window[None, :-1])[0].double()
            loss += F.cross_entropy(logits, window[1:], reduction="sum").item()
    return loss


def test_a_limit_is_shared_by_the_sources(tiny: TinyRun):
    whole = open_heldout(data(tiny, "a", "b"), max_tokens=None)
    parts = open_heldout(data(tiny, "a", "b"), max_tokens=100)
    assert sum(part.num_tokens for part in parts.values()) <= 100
    assert all(0 < parts[name].num_tokens <= 50 < whole[name].num_tokens for name in "ab")


def test_scoring_ends_early_when_asked_to_stop(tiny: TinyRun, tmp_path):
    model = Transformer(tiny.run_config(tmp_path).model)
    with one_rank() as mesh:
        parallelize(model, mesh, param_dtype=torch.float32)
        heldout = open_heldout(data(tiny, "a"), max_tokens=None)
        scores = score_heldout(
            model, heldout, mesh=mesh, batch_sequences=2, chunk_tokens=10, stop_requested=lambda: True
        )
        assert model.training
        del model
    assert scores is None


def test_after_scoring_the_model_holds_its_own_shards_in_float32(tiny: TinyRun, tmp_path):
    """What would be saved if the run were stopped now, and what a roll-back would load into."""
    model = Transformer(tiny.run_config(tmp_path).model)
    with one_rank() as mesh:
        parallelize(model, mesh, param_dtype=torch.bfloat16)
        heldout = open_heldout(data(tiny, "a"), max_tokens=50)
        assert score_heldout(model, heldout, mesh=mesh, batch_sequences=2, chunk_tokens=10)
        found = {(type(parameter), parameter.dtype) for parameter in model.parameters()}
        del model
    assert found == {(DTensor, torch.float32)}
