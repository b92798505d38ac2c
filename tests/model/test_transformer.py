"""The decoder as a whole: the paper's formulas, masks, caches, heads, gradients, names."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from criadero.model.config import ModelConfig, RopeScaling
from criadero.model.init import initialize
from criadero.model.transformer import Transformer
from naive_llama import meta_weights, naive_logits

B, T, V = 2, 9, 37


class ListCache:
    """Keys and values of each layer, appended to by concatenation."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    def update(self, layer_index: int, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor]:
        if layer_index in self.layers:
            k, v = self.layers[layer_index]
            k_BKTE, v_BKTE = torch.cat((k, k_BKTE), dim=2), torch.cat((v, v_BKTE), dim=2)
        self.layers[layer_index] = k_BKTE, v_BKTE
        return k_BKTE, v_BKTE


def model_of(*, num_kv_heads: int = 3, **other: object) -> Transformer:
    values = {"vocab_size": V, "dim": 24, "num_layers": 3, "num_heads": 3, "hidden_dim": 40, **other}
    model = Transformer(ModelConfig(num_kv_heads=num_kv_heads, **values))
    initialize(model, 7)
    with torch.no_grad():
        for parameter in model.parameters():
            # Larger weights than at the start of training, and uneven norms, so that every part matters.
            parameter.mul_(10 if parameter.ndim == 2 else torch.linspace(0.5, 2, len(parameter)))
    return model


def tokens() -> Tensor:
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(8))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("num_kv_heads", [3, 1])
def test_logits_are_those_of_the_papers_formulas(num_kv_heads: int, tied: bool):
    model = model_of(num_kv_heads=num_kv_heads, tie_embeddings=tied, norm_eps=1e-3, rope_theta=700.0).double()
    weights = meta_weights(model, head_dim=8)
    assert ("output.weight" in weights) is not tied
    for tokens_T, logits_TV in zip(tokens(), model(tokens()), strict=True):
        expected_TV = naive_logits(
            weights, tokens_T, num_heads=3, num_kv_heads=num_kv_heads, eps=1e-3, theta=700.0
        )
        # 1e-5, not less: the rotary tables are float32.
        torch.testing.assert_close(logits_TV, expected_TV, rtol=1e-5, atol=1e-5)


def test_parameter_names_are_fixed():
    names = [name for name, _ in model_of(num_layers=1).named_parameters()]
    layer = [
        "attention_norm.weight",
        *(f"attention.{x}_proj.weight" for x in "qkvo"),
        "feed_forward_norm.weight",
        *(f"feed_forward.{x}_proj.weight" for x in ("gate", "up", "down")),
    ]
    assert names == [
        "embedding.weight", *(f"layers.0.{name}" for name in layer), "norm.weight", "output.weight"
    ]  # fmt: skip
    assert list(model_of().buffers()) == []


@pytest.mark.parametrize("num_kv_heads", [3, 1])
def test_a_cached_forward_equals_the_whole(num_kv_heads: int):
    scaling = RopeScaling(factor=8.0, original_max_seq_len=16)
    model = model_of(num_kv_heads=num_kv_heads, rope_scaling=scaling)
    cache, parts = ListCache(), []
    for start, stop in [(0, 4), (4, 5), (5, 8), (8, 9)]:  # prompt, one token, several, one
        positions_BT = torch.arange(start, stop).unsqueeze(0)
        parts.append(model(tokens()[:, start:stop], positions_BT=positions_BT, cache=cache))
    torch.testing.assert_close(torch.cat(parts, dim=1), model(tokens()), rtol=1e-5, atol=1e-5)


def test_a_token_changes_no_logits_before_it():
    model, changed = model_of(), tokens()
    changed[:, 5] = (changed[:, 5] + 1) % V
    before, after = model(tokens()), model(changed)
    assert torch.equal(before[:, :5], after[:, :5])
    assert ((before[:, 5:] - after[:, 5:]).abs().amax(dim=(0, 2)) > 1e-3).all()


def test_documents_masked_apart_with_positions_of_their_own_are_as_if_alone():
    model, tokens_BT = model_of(), tokens()
    document_T = torch.tensor([0] * 4 + [1] * 5)
    mask_TT = (document_T[:, None] == document_T) & torch.ones(T, T, dtype=torch.bool).tril()
    positions_BT = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]])
    packed = model(tokens_BT, positions_BT=positions_BT, mask_BTT=mask_TT.expand(B, T, T))
    alone = torch.cat((model(tokens_BT[:, :4]), model(tokens_BT[:, 4:])), dim=1)
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)


def loss_and_gradients(model: Transformer, mask_BTT: Tensor | None) -> tuple[Tensor, list[Tensor]]:
    model.zero_grad()
    logits_BTV = model(tokens(), mask_BTT=mask_BTT)
    loss = F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), tokens()[:, 1:].flatten())
    loss.backward()
    return loss.detach(), [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("num_kv_heads", [3, 1])
def test_gradients_flow_everywhere_and_equal_those_with_the_causal_mask_given(num_kv_heads: int):
    model = model_of(num_kv_heads=num_kv_heads)
    causal_loss, causal = loss_and_gradients(model, None)
    masked_loss, masked = loss_and_gradients(model, torch.ones(B, T, T, dtype=torch.bool).tril())
    torch.testing.assert_close(causal_loss, masked_loss)
    for (name, _), one, other in zip(model.named_parameters(), causal, masked, strict=True):
        assert one.abs().max() > 1e-5, name
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6, msg=name)


def test_gradients_are_the_slopes_of_the_loss():
    model = model_of(num_layers=2).double()
    _, gradients = loss_and_gradients(model, None)
    torch.manual_seed(9)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        direction, step = torch.randn_like(parameter), 1e-5
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(sign * step * direction)
                logits_BTV = model(tokens())
                losses.append(F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), tokens()[:, 1:].flatten()))
                parameter.sub_(sign * step * direction)
        slope = (losses[0] - losses[1]) / (2 * step)
        torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("tied", [False, True])
def test_the_head_gets_hidden_states_and_the_output_weight_and_its_result_comes_back(tied: bool):
    model = model_of(tie_embeddings=tied)
    seen = {}

    def head(hidden_BTD: Tensor, weight_VD: Tensor) -> str:
        seen.update(hidden=hidden_BTD, weight=weight_VD)
        return "whatever"

    assert model(tokens(), head=head) == "whatever"
    assert seen["hidden"].shape == (B, T, 24)
    assert seen["weight"] is (model.embedding if tied else model.output).weight
    assert torch.equal(F.linear(seen["hidden"], seen["weight"]), model(tokens()))


def test_bfloat16_weights_give_bfloat16_logits_near_the_float32_ones():
    model = model_of()
    exact_BTV = model(tokens())
    logits_BTV = model.bfloat16()(tokens())
    assert logits_BTV.dtype == torch.bfloat16
    error = (logits_BTV.float() - exact_BTV).norm() / exact_BTV.norm()
    assert error < 0.03  # bfloat16 keeps 8 bits: 0.4% per rounding, a few dozen of them in a row
