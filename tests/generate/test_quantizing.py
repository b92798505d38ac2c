"""A quantised file answers as its dequantised weights do, and its cost in perplexity is told."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest
import torch

from criadero.errors import DataError, RunError, TokenizerError
from criadero.formats.gguf_write import write_gguf as export
from criadero.formats.load import load_model, open_model
from criadero.formats.model_card import TrainingFacts
from criadero.generate.load import load_generator
from criadero.generate.quantizing import quantize_model, sample_text
from criadero.generate.sampling import SamplingConfig
from criadero.model.quantized import QuantizedTensor
from foreign_models import random_llama, write_gguf

TEXT = "hi the 12, hi the 34; " * 9


def facts(stored: object) -> TrainingFacts:
    return TrainingFacts()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.gguf"
    write_gguf(path, random_llama(), gguf.GGMLQuantizationType.F32)
    return path


@pytest.mark.parametrize(("bits", "kind"), [(4, "Q4_1"), (8, "Q8_0")])
def test_matrices_take_the_kind_and_embedding_and_output_8_bits(bits: int, kind: str, source: Path):
    out = source.parent / "out.gguf"
    done = quantize_model(source, out, bits=bits, facts_of=facts, text=TEXT)
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(out).tensors}
    assert {kinds["token_embd.weight"], kinds["output.weight"]} == {"Q8_0"}
    assert kinds["blk.1.ffn_down.weight"] == kinds["blk.0.attn_q.weight"] == kind
    assert kinds["output_norm.weight"] == "F32"
    assert done.size_bytes == out.stat().st_size
    assert done.before.tokens == done.after.tokens > 50
    assert done.change == pytest.approx(done.after.perplexity / done.before.perplexity - 1)
    assert abs(done.change) < (0.02 if bits == 8 else 0.5)


@pytest.mark.parametrize("bits", [4, 8])
def test_greedy_tokens_equal_those_of_the_dequantised_model(
    bits: int, source: Path, monkeypatch: pytest.MonkeyPatch
):
    # The C++ kernel rounds activations to 8 bits beside quantised weights; plain torch rounds nothing.
    monkeypatch.setattr("criadero.generate.engine.cpu_decoder", lambda model, cache: None)
    out = source.parent / "out.gguf"
    quantize_model(source, out, bits=bits, facts_of=facts, text=TEXT)
    kept, plain = load_generator(out), load_generator(out, dtype="float32")
    assert isinstance(kept.generator.model.output_weight, QuantizedTensor)
    assert not isinstance(plain.generator.model.output_weight, QuantizedTensor)
    ids = kept.generator.encode("hi the")
    sampling = SamplingConfig(temperature=0, max_tokens=24)
    found = kept.generator.generate(ids, sampling, end_ids=[]).ids
    assert found == plain.generator.generate(ids, sampling, end_ids=[]).ids
    assert len(found) == 24


def test_a_file_that_is_quantised_so_already_is_copied(source: Path):
    first, second = source.parent / "first.gguf", source.parent / "second.gguf"
    quantize_model(source, first, bits=4, facts_of=facts, text=TEXT)
    done = quantize_model(first, second, bits=4, facts_of=facts, text=TEXT)
    assert done.change == 0
    once, twice = load_model(first).model, load_model(second).model
    for name, weight in once.named_parameters():
        assert torch.equal(weight, twice.get_parameter(name))


def test_progress_is_told_for_both(source: Path):
    calls: list[tuple[str, int, int]] = []
    out = source.parent / "out.gguf"
    quantize_model(
        source, out, bits=8, facts_of=facts, text=TEXT, on_progress=lambda *call: calls.append(call)
    )
    assert {what for what, _, _ in calls} == {"before", "after"}
    assert all(done <= total for _, done, total in calls)


def test_an_output_that_exists_is_left_alone(source: Path):
    out = source.parent / "out.gguf"
    out.write_text("mine")
    with pytest.raises(RunError, match="exists already") as caught:
        quantize_model(source, out, bits=8, facts_of=facts, text=TEXT)
    assert caught.value.hint
    assert out.read_text() == "mine"


def test_a_text_too_short_writes_nothing(source: Path):
    out = source.parent / "out.gguf"
    with pytest.raises(DataError, match="too few") as caught:
        quantize_model(source, out, bits=8, facts_of=facts, text="")
    assert caught.value.hint
    assert not out.exists()


def test_a_model_without_tokenizer_cannot_be_scored(source: Path):
    bare = source.parent / "bare.gguf"
    export(open_model(source), bare, dtype="f32", name="bare", tokenizer=None)
    with pytest.raises(TokenizerError, match="no tokenizer"):
        quantize_model(bare, source.parent / "out.gguf", bits=8, facts_of=facts, text=TEXT)


def test_the_text_that_comes_along_is_prose_of_some_size():
    assert 20_000 < len(sample_text().encode()) < 30_000
    assert sample_text().startswith("To Sherlock Holmes she is always the woman.")
