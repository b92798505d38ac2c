"""The C++ kernel against plain torch, and what happens where it cannot be had."""

from __future__ import annotations

import logging
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from criadero import notices
from criadero.generate import cpu_build, cpu_kernel
from criadero.generate.cpu_kernel import CPUDecoder, cpu_decoder
from criadero.generate.decode import TorchDecoder
from criadero.generate.kv_cache import BLOCK_TOKENS, PagedCache
from criadero.model.config import ModelConfig
from criadero.model.init import initialize
from criadero.model.quantized import quantize
from criadero.model.transformer import Transformer
from packaged import packaged_file

SHAPES = {
    "heads that share keys": {"dim": 48, "num_heads": 6, "num_kv_heads": 2, "hidden_dim": 80},
    "one key for all, odd sizes": {
        "dim": 30, "num_heads": 5, "num_kv_heads": 1, "hidden_dim": 77, "vocab_size": 103,
    },
    "a key for each, wide heads": {"dim": 36, "num_heads": 3, "head_dim": 34, "hidden_dim": 40},
    "narrow heads, tied": {"dim": 24, "num_heads": 6, "hidden_dim": 17, "tie_embeddings": True},
    "stretched": {
        "dim": 64, "num_heads": 4, "num_kv_heads": 2, "hidden_dim": 96, "rope_theta": 5e5,
        "rope_scaling": {"factor": 8.0, "original_max_seq_len": 256},
    },
}  # fmt: skip


def new_model(*, seed: int = 5, **sizes: Any) -> Transformer:
    """A float32 model whose weights are large enough that its logits vary."""
    config = ModelConfig(**{"vocab_size": 261, "num_layers": 2, "max_seq_len": 4096, **sizes})
    model = Transformer(config)
    initialize(model, seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
            parameter.mul_(8) if parameter.ndim > 1 else parameter.add_(0.3 * noise)
    return model.requires_grad_(False)


def quantised(model: Transformer, *, bits: int, group: int) -> Transformer:
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            weight = quantize(module.weight, bits=bits, group=group)
            module.weight = nn.Parameter(weight, requires_grad=False)
    return model


def dequantised(model: Transformer) -> Transformer:
    plain = Transformer(model.config)
    state = {name: getattr(p, "dequantize", p.clone)() for name, p in model.state_dict().items()}
    plain.load_state_dict(state)
    return plain


def filled_cache(config: ModelConfig, *, blocks: int, dtype: torch.dtype = torch.float32) -> PagedCache:
    """A cache that holds something everywhere, always the same."""
    cache = PagedCache(config, num_blocks=blocks, dtype=dtype)
    generator = torch.Generator().manual_seed(3)
    for tensor in (cache.keys, cache.values):
        tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return cache


def step_of(positions: list[int], *, vocab_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, positions, and tables of scattered blocks, each block in one sequence only."""
    counts = [position // BLOCK_TOKENS + 1 for position in positions]
    numbers = (torch.randperm(sum(counts), generator=torch.Generator().manual_seed(1)) + 1).split(counts)
    tables_BN = nn.utils.rnn.pad_sequence(list(numbers), batch_first=True).int()
    tokens_B = torch.arange(len(positions)) * 37 % vocab_size
    return tokens_B, torch.tensor(positions), tables_BN


def compared(model: Transformer, reference: Transformer, positions: list[int]) -> tuple[Tensor, Tensor]:
    """Logits of the kernel and of plain torch; both also leave the same cache."""
    step = step_of(positions, vocab_size=model.config.vocab_size)
    blocks = int(step[2].max()) + 2
    ours, theirs = (filled_cache(model.config, blocks=blocks) for _ in range(2))
    logits = CPUDecoder(model, ours).step(*step), TorchDecoder(reference, theirs).step(*step)
    if model is reference and type(model.output_weight) is nn.Parameter:
        torch.testing.assert_close(ours.keys, theirs.keys, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(ours.values, theirs.values, atol=1e-4, rtol=1e-4)
    return logits


def relative_error(found: Tensor, expected: Tensor) -> float:
    spread = expected - expected.mean(dim=-1, keepdim=True)
    return ((found - expected).square().mean() / spread.square().mean()).sqrt().item()


@pytest.mark.parametrize("sizes", SHAPES.values(), ids=SHAPES.keys())
def test_logits_are_those_of_torch(sizes: dict[str, Any]):
    model = new_model(**sizes)
    found, expected = compared(model, model, [0, 31, 32, 700, 255, 256, 5])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_sequence_from_its_first_token_gives_the_logits_of_one_pass():
    model = new_model(**SHAPES["heads that share keys"])
    tokens_1T = torch.randint(261, (1, 70), generator=torch.Generator().manual_seed(0))
    decoder = cpu_decoder(model, PagedCache(model.config, num_blocks=4, dtype=torch.float32))
    assert decoder is not None
    table_1N = torch.tensor([[2, 1, 3]], dtype=torch.int32)
    found = [decoder.step(tokens_1T[0, t : t + 1], torch.tensor([t]), table_1N) for t in range(70)]
    torch.testing.assert_close(torch.cat(found), model(tokens_1T)[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "4 bits", "8 bits"])
def test_results_depend_neither_on_the_batch_nor_on_threads(weights: str, monkeypatch: pytest.MonkeyPatch):
    model = new_model(dim=64, num_heads=4, num_kv_heads=2, hidden_dim=96)
    if "bits" in weights:
        quantised(model, bits=int(weights[0]), group=32)
    elif weights == "bfloat16":
        model.bfloat16()
    positions = [3, 600, 40, 255, 64, 9, 31, 128, 2, 77, 300, 0, 1, 5, 8]  # 8 + 4 + 2 + 1 used together
    tokens_B, positions_B, tables_BN = step_of(positions, vocab_size=261)
    blocks = int(tables_BN.max()) + 1
    together = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        decoder = CPUDecoder(model, filled_cache(model.config, blocks=blocks))
        together.append(decoder.step(tokens_B, positions_B, tables_BN))
    decoder = CPUDecoder(model, filled_cache(model.config, blocks=blocks))
    rows = zip(tokens_B.split(1), positions_B.split(1), tables_BN.split(1), strict=True)
    alone = torch.cat([decoder.step(*row) for row in rows])
    assert together[0].isfinite().all()
    assert all(torch.equal(logits, alone) for logits in together)


@pytest.mark.parametrize("quantise", [False, True])
def test_logits_of_the_last_token_alone_are_those_among_all_and_none_is_none(quantise: bool):
    model = new_model(dim=64, num_heads=4, num_kv_heads=2, hidden_dim=96)
    if quantise:
        quantised(model, bits=4, group=32)
    step = step_of([3, 600, 40, 255, 64, 9, 31, 128, 2, 77, 300], vocab_size=261)
    caches = [filled_cache(model.config, blocks=int(step[2].max()) + 1) for _ in range(3)]
    every, last, none = (
        CPUDecoder(model, cache).step(*step, scored=scored)
        for cache, scored in zip(caches, (None, 1, 0), strict=True)
    )
    assert torch.equal(last, every[-1:])
    assert none.shape == (0, 261)
    assert all(torch.equal(caches[0].keys, cache.keys) for cache in caches)
    decoder = TorchDecoder(model, caches[0])
    assert [len(decoder.step(*step, scored=scored)) for scored in (None, 1, 0)] == [11, 1, 0]
    with pytest.raises(ValueError, match="none, one or all"):
        CPUDecoder(model, caches[0]).step(*step, scored=2)


@pytest.mark.parametrize("group", [16, 32, 64])
@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_logits_are_close_to_those_of_the_dequantised_model(bits: int, group: int):
    model = quantised(new_model(dim=192, num_heads=4, num_kv_heads=2, hidden_dim=320), bits=bits, group=group)
    found, expected = compared(model, dequantised(model), [7, 100, 31])
    # Activations are rounded to one part in 254 of the largest of 32, about 0.6% of their size; the large
    # weights of two layers make 2 to 4% of it. Scales of a wrong group make more than 50%.
    assert relative_error(found, expected) < 0.05
    assert relative_error(found, expected) > 0


def test_scales_and_minimums_are_read_in_float32_too():
    model = quantised(new_model(dim=64, num_heads=4, hidden_dim=96), bits=4, group=32)
    step, cache = step_of([40, 3], vocab_size=261), filled_cache(model.config, blocks=4)
    half = CPUDecoder(model, cache).step(*step)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.scales, parameter.data.mins = parameter.scales.float(), parameter.mins.float()
    single = CPUDecoder(model, cache).step(*step)
    assert torch.equal(half, single)


def test_a_bfloat16_cache_and_weights_are_as_near_as_their_rounding():
    model = new_model(dim=64, num_heads=4, num_kv_heads=2, hidden_dim=96).bfloat16()
    step = step_of([40, 3, 290], vocab_size=261)
    cache = filled_cache(model.config, blocks=16, dtype=torch.bfloat16)
    found = CPUDecoder(model, cache).step(*step)
    single = filled_cache(model.config, blocks=16)
    single.keys.copy_(filled_cache(model.config, blocks=16).keys.bfloat16())
    single.values.copy_(filled_cache(model.config, blocks=16).values.bfloat16())
    expected = TorchDecoder(new_model(**model.config.model_dump()).float(), single)
    expected._model.load_state_dict(model.state_dict())
    assert relative_error(found, expected.step(*step)) < 0.02


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_greedy_tokens_equal_those_of_torch(threads: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    model = new_model(**SHAPES["heads that share keys"])
    tables_BN = torch.tensor([[1, 2], [3, 4], [5, 6]], dtype=torch.int32)
    chosen = []
    for kind in (CPUDecoder, TorchDecoder):
        decoder = kind(model, PagedCache(model.config, num_blocks=7, dtype=torch.float32))
        tokens_B, found = torch.tensor([1, 2, 3]), []
        for t in range(40):
            tokens_B = decoder.step(tokens_B, torch.full((3,), t), tables_BN).argmax(dim=-1)
            found.append(tokens_B)
        chosen.append(torch.stack(found))
    assert torch.equal(*chosen)
    assert chosen[0].unique().numel() > 3


def test_what_is_not_a_number_is_passed_on():
    model = quantised(new_model(dim=64, num_heads=4, hidden_dim=96), bits=4, group=32)
    model.layers[1].feed_forward_norm.weight[3] = float("nan")
    decoder = CPUDecoder(model, filled_cache(model.config, blocks=3))
    assert decoder.step(*step_of([3], vocab_size=261)).isnan().all()


@pytest.mark.parametrize(
    ("token", "position", "block", "fault"),
    [
        (261, 0, 0, "token"),
        (-1, 0, 0, "token"),
        (0, 32, 0, "position"),
        (0, -1, 0, "position"),
        (0, 0, 3, "block"),
    ],
)
def test_what_is_not_there_is_refused(token: int, position: int, block: int, fault: str):
    model = new_model(dim=24, num_heads=2, hidden_dim=40)
    decoder = CPUDecoder(model, filled_cache(model.config, blocks=3))
    with pytest.raises(ValueError, match=fault):
        decoder.step(torch.tensor([token]), torch.tensor([position]), torch.tensor([[block]]))


def test_what_the_cache_holds_survives_the_comparison():
    model = new_model(dim=24, num_heads=2, hidden_dim=40)
    cache = filled_cache(model.config, blocks=3)
    assert cpu_decoder(model, cache) is not None
    assert torch.equal(cache.keys, filled_cache(model.config, blocks=3).keys)


# ------------------------------------------------------------------ where it cannot be had


@pytest.fixture
def new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Nothing is built yet, and nothing was said."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setattr(notices, "_said", set())
    monkeypatch.setattr(cpu_build, "_FLAGS", ("-O0", *cpu_build._FLAGS[1:]))
    cpu_build.load_library.cache_clear()
    yield tmp_path
    cpu_build.load_library.cache_clear()


def refusals(caplog: pytest.LogCaptureFixture, **sizes: Any) -> list[str]:
    """Ask twice for a decoder that cannot be had; return what was said."""
    model = new_model(**{"dim": 24, "num_heads": 2, "hidden_dim": 40, **sizes})
    with caplog.at_level(logging.WARNING, logger="criadero"):
        for _ in range(2):
            assert cpu_decoder(model, filled_cache(model.config, blocks=3)) is None
    return [record.getMessage() for record in caplog.records]


def test_without_a_compiler_there_is_none_and_that_is_said_once(
    new_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("CXX", "/nowhere/g++")
    (said,) = refusals(caplog)
    assert "plain torch" in said
    assert "`/nowhere/g++` is not there" in said


def test_a_compiler_that_fails_gives_none(
    new_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    compiler = new_folder / "compiler"
    compiler.write_text('#!/bin/sh\ncase "$*" in *-dM*) exit 0;; esac\necho broken: 7 >&2\nexit 3\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    (said,) = refusals(caplog)
    assert "the compiler ended with 3: broken: 7" in said
    assert not list(new_folder.rglob("*.so"))


def test_a_kernel_with_other_logits_is_not_used(
    new_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    source = cpu_build.SOURCE.read_text()
    wrong = source.replace("squares = multiply_add(some, some, squares)", "squares = some")
    assert wrong != source
    shutil.copytree(cpu_build.SOURCE.parent, new_folder / "wrong")
    (new_folder / "wrong" / "decoder.cpp").write_text(wrong)
    monkeypatch.setattr(cpu_build, "SOURCE", new_folder / "wrong" / "decoder.cpp")
    (said,) = refusals(caplog)
    assert "its logits differ from the model's" in said


def test_a_damaged_library_is_built_again(new_folder: Path):
    model = new_model(dim=24, num_heads=2, hidden_dim=40)
    cache = filled_cache(model.config, blocks=3)
    assert cpu_decoder(model, cache) is not None
    (library,) = new_folder.rglob("*.so")
    whole = library.read_bytes()
    library.unlink()  # the loaded one stays as it is
    library.write_bytes(whole[:5000])
    cpu_build.load_library.cache_clear()
    assert cpu_decoder(model, cache) is not None
    assert library.stat().st_size == len(whole)


def test_a_library_that_cannot_be_loaded_gives_none(
    new_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    compiler = new_folder / "compiler"
    compiler.write_text(
        '#!/bin/sh\nwhile [ $# -gt 1 ]; do [ "$1" = -o ] && echo no library > "$2"; shift; done\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    (said,) = refusals(caplog)
    assert "cannot be built" in said
    assert list(new_folder.rglob("*.so"))


def test_float16_is_left_to_torch(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(notices, "_said", set())
    model = new_model(dim=24, num_heads=2, hidden_dim=40).half()
    cache = filled_cache(model.config, blocks=3)
    assert cpu_decoder(model, cache) is None
    assert cpu_decoder(model.float(), filled_cache(model.config, blocks=3, dtype=torch.float16)) is None
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == [
        "it does not read weights in torch.float16",
        "it does not keep keys and values in torch.float16 on cpu",
    ]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have one form only")
@pytest.mark.parametrize("flags", [("-march=x86-64",), ("-march=haswell",)], ids=["plain loops", "AVX2"])
def test_without_newer_instructions_results_are_the_same(
    flags: tuple[str, ...], new_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    models = [
        new_model(**SHAPES["one key for all, odd sizes"]),
        new_model(dim=48, num_heads=3, hidden_dim=80),
    ]
    models += [new_model(dim=96, num_heads=3, hidden_dim=224) for _ in range(4)]
    for model, bits, group in zip(models[2:], (4, 4, 8, 8), (16, 32, 16, 32), strict=True):
        quantised(model, bits=bits, group=group)
    models[1].bfloat16()
    step = step_of([7, 300, 31], vocab_size=103)
    expected = [CPUDecoder(m, filled_cache(m.config, blocks=16)).step(*step) for m in models]
    kept = (word for word in cpu_build._FLAGS if not word.startswith(("-O", "-march")))
    monkeypatch.setattr(cpu_build, "_FLAGS", ("-O1", *flags, *kept))
    cpu_build.load_library.cache_clear()
    for model, logits in zip(models, expected, strict=True):
        found = CPUDecoder(model, filled_cache(model.config, blocks=16)).step(*step)
        torch.testing.assert_close(found, logits, atol=2e-4, rtol=2e-4)


@pytest.mark.network
@pytest.mark.xdist_group("smollm2")
def test_smollm2_from_its_own_4_bit_blocks_says_what_the_dequantised_model_says():
    from criadero.formats.load import load_model

    file = packaged_file("smollm2-gguf")
    loaded, plain = load_model(file, keep_quantized=True), load_model(file)
    assert loaded.tokenizer is not None
    text = "The whale is the largest animal that has ever lived. It feeds on small creatures of the sea, and"
    tokens_T = torch.tensor(loaded.tokenizer.encode(text))
    cache = PagedCache(loaded.config, num_blocks=2, dtype=torch.float32)
    decoder = cpu_decoder(loaded.model, cache)
    assert decoder is not None
    table = torch.tensor([[1]], dtype=torch.int32)
    steps = [decoder.step(tokens_T[t : t + 1], torch.tensor([t]), table) for t in range(len(tokens_T))]
    with torch.no_grad():
        expected = plain.model(tokens_T.unsqueeze(0))[0].log_softmax(dim=-1)
    divergence = (expected.exp() * (expected - torch.cat(steps).log_softmax(dim=-1))).sum(dim=-1).mean()
    assert 0 < divergence.item() < 0.01


def test_the_kernel_reads_whole_blocks_of_this_cache():
    assert cpu_kernel._ATTENTION_TOKENS % BLOCK_TOKENS == 0
