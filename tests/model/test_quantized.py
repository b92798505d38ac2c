"""Quantised matrices: what they hold, how far rounding goes, and that layers take them as weights."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from criadero.model import quantized
from criadero.model.config import ModelConfig
from criadero.model.init import initialize
from criadero.model.quantized import QuantizedTensor, quantize
from criadero.model.transformer import Transformer

KINDS = pytest.mark.parametrize(("bits", "group"), [(4, 32), (8, 32), (4, 64), (8, 16)])


def random_weight(rows: int = 5, columns: int = 192) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(7))


def naive_values(held: QuantizedTensor) -> torch.Tensor:
    """The definition: scale * code + minimum, one weight at a time."""
    rows, columns = held.shape
    values = torch.empty(rows, columns)
    for row in range(rows):
        for column in range(columns):
            if held.bits == 8:
                code = held.codes[row, column]
            else:
                code = (held.codes[row, column // 2] >> (4 * (column % 2))) & 15
            group = column // held.group
            values[row, column] = held.scales[row, group].float() * code + held.mins[row, group].float()
    return values


@KINDS
def test_values_are_scale_times_code_plus_minimum(bits: int, group: int):
    held = quantize(random_weight(), bits=bits, group=group)
    assert torch.equal(held.dequantize(), naive_values(held))


@KINDS
def test_rounding_moves_no_weight_by_more_than_half_a_code_and_the_rounding_of_the_scale(
    bits: int, group: int
):
    weight = random_weight()
    held = quantize(weight, bits=bits, group=group)
    scales = held.scales.float().repeat_interleave(group, dim=1)
    largest = weight.view(5, -1, group).abs().amax(dim=2).repeat_interleave(group, dim=1)
    float16_rounding = 2 * largest * 2.0**-11
    assert ((held.dequantize() - weight).abs() <= scales / 2 + float16_rounding).all()


@KINDS
def test_a_matrix_takes_the_bytes_of_its_codes_and_scales(bits: int, group: int):
    held = quantize(random_weight(), bits=bits, group=group)
    assert held.size_bytes == 5 * 192 * bits // 8 + 2 * 2 * 5 * 192 // group


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_too_large_for_float16_keep_float32_scales(bits: int):
    weight = random_weight() * 1e6
    held = quantize(weight, bits=bits)
    assert held.scales.dtype == torch.float32
    assert F.mse_loss(held.dequantize(), weight) < weight.pow(2).mean() * 0.01


@pytest.mark.parametrize("bits", [4, 8])
def test_a_constant_matrix_stays_finite_and_constant(bits: int):
    held = quantize(torch.full((2, 32), 0.5), bits=bits)
    assert torch.allclose(held.dequantize(), torch.full((2, 32), 0.5), atol=1e-3)
    assert torch.equal(quantize(torch.zeros(2, 32), bits=bits).dequantize(), torch.zeros(2, 32))


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear_is_the_product_with_the_dequantised_matrix(bits: int, group: int, dtype: torch.dtype):
    held = quantize(random_weight(), bits=bits, group=group)
    x = torch.randn(2, 3, 192).to(dtype)
    bias = torch.randn(5).to(dtype)
    torch.testing.assert_close(F.linear(x, held), F.linear(x, held.dequantize(dtype)))
    torch.testing.assert_close(F.linear(x, held, bias), F.linear(x, held.dequantize(dtype), bias))


@pytest.mark.parametrize("bias", [None, torch.arange(5.0)])
def test_linear_of_a_large_matrix_is_made_in_parts(
    bias: torch.Tensor | None, monkeypatch: pytest.MonkeyPatch
):
    held = quantize(random_weight(), bits=4)
    x = torch.randn(2, 3, 192)
    monkeypatch.setitem(quantized._VALUES_AT_ONCE, "cpu", 2 * 192)
    torch.testing.assert_close(F.linear(x, held, bias), F.linear(x, held.dequantize(), bias))


@KINDS
def test_embedding_gives_the_dequantised_rows(bits: int, group: int):
    held = quantize(random_weight(), bits=bits, group=group).to(torch.bfloat16)
    ids = torch.tensor([[4, 0, 0], [1, 2, 4]])
    assert torch.equal(F.embedding(ids, held), held.dequantize()[ids])
    assert F.embedding(ids, held).dtype == torch.bfloat16


def test_a_layer_with_a_quantised_parameter_loads_moves_and_compiles():
    held = nn.Parameter(quantize(random_weight(), bits=4), requires_grad=False)
    layer = nn.Linear(192, 5, bias=False, device="meta")
    layer.load_state_dict({"weight": held}, assign=True)
    layer.to(torch.bfloat16)
    assert isinstance(layer.weight, QuantizedTensor)
    assert (layer.weight.dtype, layer.weight.scales.dtype) == (torch.bfloat16, torch.float16)
    x = torch.randn(3, 192)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))
    assert layer.to("meta").weight.codes.device.type == "meta"


def test_copies_share_nothing():
    held = quantize(random_weight(), bits=8)
    twin = copy.deepcopy(held)
    twin.codes.zero_()
    assert held.codes.any()
    assert torch.equal(twin.mins, held.mins)


def test_rows_are_selected_as_they_are_held():
    held = quantize(random_weight(), bits=4)
    order = torch.tensor([3, 1, 4])
    assert torch.equal(held.select_rows(order).dequantize(), held.dequantize()[order])
    assert torch.equal(held.select_rows(slice(1, 3)).dequantize(), held.dequantize()[1:3])


def test_a_transformer_of_quantised_matrices_equals_its_dequantised_twin():
    config = ModelConfig(
        vocab_size=37, dim=64, hidden_dim=96, num_layers=2, num_heads=4, num_kv_heads=2, max_seq_len=16
    )
    model = Transformer(config)
    initialize(model, seed=3)
    twin = copy.deepcopy(model)
    for name, parameter in dict(model.named_parameters()).items():
        if parameter.ndim == 2:
            held = quantize(parameter, bits=4)
            twin.get_parameter(name).data = held.dequantize()
            owner, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(owner), attribute, nn.Parameter(held, requires_grad=False))
    tokens = torch.arange(15).view(3, 5)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), twin(tokens))


def test_what_is_not_defined_says_what_to_do():
    with pytest.raises(RuntimeError, match=r"dequantize\(\)"):
        quantize(random_weight(), bits=4) + 1


@pytest.mark.parametrize(("columns", "bits", "group"), [(33, 8, 32), (32, 5, 32), (32, 4, 8)])
def test_what_cannot_be_held_is_refused(columns: int, bits: int, group: int):
    with pytest.raises(ValueError, match="not held"):
        quantize(torch.ones(2, columns), bits=bits, group=group)


def test_parts_that_do_not_fit_are_refused():
    held = quantize(random_weight(), bits=8)
    with pytest.raises(ValueError, match=r"\(5, 6\) expected"):
        QuantizedTensor(held.codes, held.scales[:, :3], held.mins, bits=8, group=32)


@pytest.mark.parametrize(
    "weight", [quantize(torch.ones(2, 32), bits=4), torch.ones(0, 32), torch.ones(32)], ids=str
)
def test_what_is_no_float_matrix_is_not_quantised(weight):
    with pytest.raises(ValueError, match="is no float matrix"):
        quantize(weight, bits=4)
