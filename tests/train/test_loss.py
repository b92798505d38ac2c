"""Chunked cross-entropy against torch's own, in value, gradients and memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from criadero.parallel.mesh import Mesh
from criadero.shards.batch import IGNORED
from criadero.train.loss import ChunkedCrossEntropy
from ranks import run_ranks

B, T, D, V = 3, 7, 5, 11


def inputs(dtype: torch.dtype = torch.float32, *, ignored: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden_BTD = torch.randn(B, T, D, generator=generator).to(dtype).requires_grad_()
    weight_VD = torch.randn(V, D, generator=generator).to(dtype).requires_grad_()
    targets_BT = torch.randint(V, (B, T), generator=generator)
    places = torch.randperm(B * T, generator=generator)[:ignored]
    targets_BT.view(-1)[places] = IGNORED
    return hidden_BTD, weight_VD, targets_BT


def reference(
    hidden_BTD: Tensor, weight_VD: Tensor, targets_BT: Tensor, *, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss by torch's cross_entropy in float64, and the gradients of `scale` times it."""
    hidden_BTD = hidden_BTD.detach().double().requires_grad_()
    weight_VD = weight_VD.detach().double().requires_grad_()
    logits_NV = (hidden_BTD @ weight_VD.T).flatten(0, 1)
    loss = F.cross_entropy(logits_NV, targets_BT.flatten(), ignore_index=IGNORED, reduction="sum")
    (loss * scale).backward()
    return loss.detach(), hidden_BTD.grad, weight_VD.grad


@pytest.mark.parametrize("chunk_tokens", [1, 2, 5, 20, 21, 1000])
@pytest.mark.parametrize("ignored", [0, 4, B * T])
def test_value_and_gradients_equal_torchs_whatever_the_chunk(chunk_tokens: int, ignored: int):
    hidden_BTD, weight_VD, targets_BT = inputs(ignored=ignored)
    loss = ChunkedCrossEntropy(targets_BT, chunk_tokens=chunk_tokens)(hidden_BTD, weight_VD)
    (loss * 0.37).backward()
    expected, d_hidden_BTD, d_weight_VD = reference(hidden_BTD, weight_VD, targets_BT, scale=0.37)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(hidden_BTD.grad.double(), d_hidden_BTD, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(weight_VD.grad.double(), d_weight_VD, rtol=1e-6, atol=1e-6)


def test_gradients_survive_a_numerical_check():
    hidden_BTD, weight_VD, targets_BT = inputs(ignored=2)
    loss_of = ChunkedCrossEntropy(targets_BT, chunk_tokens=4)
    loss_of(hidden_BTD, weight_VD).backward()
    # float32 central differences are good to about (1e-7 * loss / step); a step of 0.01 leaves 1e-3.
    for parameter, place in ((hidden_BTD, (1, 3, 2)), (weight_VD, (6, 4))):
        values = []
        for delta in (0.01, -0.01):
            with torch.no_grad():
                parameter[place] += delta
                values.append(loss_of(hidden_BTD, weight_VD).item())
                parameter[place] -= delta
        assert parameter.grad[place].item() == pytest.approx((values[0] - values[1]) / 0.02, abs=2e-3)


def test_bfloat16_inputs_give_a_float32_loss_close_to_the_exact_one():
    hidden_BTD, weight_VD, targets_BT = inputs(torch.bfloat16)
    loss = ChunkedCrossEntropy(targets_BT, chunk_tokens=4)(hidden_BTD, weight_VD)
    (loss / 17).backward()
    expected, d_hidden_BTD, d_weight_VD = reference(hidden_BTD, weight_VD, targets_BT, scale=1 / 17)
    assert loss.dtype == torch.float32
    assert hidden_BTD.grad.dtype == weight_VD.grad.dtype == torch.bfloat16
    # bfloat16 keeps 8 bits: logits of size up to 8 are off by up to 0.016, gradients by about 1%.
    torch.testing.assert_close(loss.double(), expected, rtol=5e-3, atol=0)
    torch.testing.assert_close(hidden_BTD.grad.double(), d_hidden_BTD, rtol=0.03, atol=2e-3)
    torch.testing.assert_close(weight_VD.grad.double(), d_weight_VD, rtol=0.03, atol=2e-3)


def test_huge_logits_neither_overflow_nor_turn_into_nan():
    hidden_BTD, weight_VD, targets_BT = inputs()
    with torch.no_grad():
        hidden_BTD *= 1e4
    loss = ChunkedCrossEntropy(targets_BT, chunk_tokens=4)(hidden_BTD, weight_VD)
    loss.backward()
    assert loss.isfinite()
    assert hidden_BTD.grad.isfinite().all()


def test_without_gradients_none_is_formed():
    hidden_BTD, weight_VD, targets_BT = inputs()
    expected, _, _ = reference(hidden_BTD, weight_VD, targets_BT, scale=1.0)
    with torch.no_grad():
        loss = ChunkedCrossEntropy(targets_BT, chunk_tokens=4)(hidden_BTD, weight_VD)
    assert not loss.requires_grad
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)


class LargestTensor(TorchDispatchMode):
    """Watches every operator and keeps the size of the largest tensor it returned."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_the_logits_never_exist_whole_and_nothing_of_their_size_is_saved():
    tokens, width, vocabulary, chunk_tokens = 61, 6, 97, 8
    hidden = torch.randn(1, tokens, width, requires_grad=True)
    weight = torch.randn(vocabulary, width, requires_grad=True)
    targets = torch.randint(vocabulary, (1, tokens))
    saved: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), LargestTensor() as largest:
        loss = ChunkedCrossEntropy(targets, chunk_tokens=chunk_tokens)(hidden, weight)
        loss.backward()
    assert sorted(saved) == sorted([tokens * width, vocabulary * width])
    assert largest.elements <= chunk_tokens * vocabulary < tokens * vocabulary // 7


def with_a_third_of_the_vocabulary(mesh: Mesh) -> float:
    """Check this rank's part of everything; return the loss."""
    ranks, rank = mesh.sharing_products, mesh.tensor_parallel.get_local_rank()
    vocabulary, chunk_tokens = 96, 4
    hidden_BTD, _, targets_BT = inputs()
    targets_BT = targets_BT.where(targets_BT == IGNORED, targets_BT * 9)
    weight_VD = torch.randn(vocabulary, D, generator=torch.Generator().manual_seed(1))
    expected, d_hidden_BTD, d_weight_VD = reference(hidden_BTD, weight_VD, targets_BT, scale=0.37)
    part = slice(32 * rank, 32 * rank + 32)
    own_VD = weight_VD[part].clone().requires_grad_()
    with LargestTensor() as largest:
        loss = ChunkedCrossEntropy(targets_BT, chunk_tokens=chunk_tokens, ranks=ranks)(hidden_BTD, own_VD)
        (loss * 0.37).backward()
    torch.testing.assert_close(loss.detach().double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(own_VD.grad.double(), d_weight_VD[part], rtol=1e-6, atol=1e-6)
    torch.distributed.all_reduce(hidden_BTD.grad)
    torch.testing.assert_close(hidden_BTD.grad.double(), d_hidden_BTD, rtol=1e-6, atol=1e-6)
    assert largest.elements <= own_VD.numel() < B * T * vocabulary // 3
    with torch.no_grad():
        huge = ChunkedCrossEntropy(targets_BT, chunk_tokens=chunk_tokens, ranks=ranks)(
            hidden_BTD * 1e4, own_VD
        )
    assert huge.isfinite()
    return loss.item()


def test_ranks_that_share_the_vocabulary_have_the_same_loss_and_their_part_of_the_gradients():
    losses = run_ranks(with_a_third_of_the_vocabulary, 3, tp=3)
    assert len(set(losses)) == 1
