"""Matrix products of ranks that share them, and the exchange of sequence parts that goes with them.

Entry points: `gather_and_multiply`, `multiply_and_add_up`, `gather`, `add_up`, which `tensor_parallel` calls.
Each is one operator to compilers and recomputation, with a backward of its own; inside it, one block of the
sequence travels while another is multiplied. The sequence is laid out block-cyclically: it is cut into
`chunks` blocks, and a rank holds 1/tp of each, so that a gathered block is a run of the sequence.
Letters: B batch, T sequence, t = T/tp what a rank holds of it, D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from criadero.model.layout import sum_of_products

# The operators below torch's functional collectives, whose Python names differ between releases: they return
# at once, and `wait_tensor` waits for what they returned.
_COLLECTIVES = torch.ops._c10d_functional

# What is under way: call it to wait for the result.
Pending = Callable[[], Tensor]


@torch.library.custom_op(
    "criadero::gather_and_multiply",
    mutates_args=(),
    schema="(Tensor x, Tensor[] weights, str group, int chunks) -> Tensor[]",
)
def gather_and_multiply(x_BtD: Tensor, weights: Sequence[Tensor], group: str, chunks: int) -> list[Tensor]:
    """Return `gather(x) @ weight.T`, (B, T, rows), for each weight (rows, D).

    The gathered sequence is not kept for the backward pass but gathered again: between layers,
    a rank keeps its part of the sequence only.
    """
    products: list[list[Tensor]] = [[] for _ in weights]
    for block in _start_gathers(x_BtD, group, chunks):
        x_block = block()
        for of_weight, weight in zip(products, weights, strict=True):
            of_weight.append(F.linear(x_block, weight))
    return [_joined(of_weight) for of_weight in products]


@torch.library.custom_op(
    "criadero::gather_and_multiply_backward",
    mutates_args=(),
    schema="(Tensor x, Tensor[] weights, Tensor[] grads, str group, int chunks) -> Tensor[]",
)
def _gather_and_multiply_backward(
    x_BtD: Tensor, weights: Sequence[Tensor], grads: Sequence[Tensor], group: str, chunks: int
) -> list[Tensor]:
    """Return the gradient of x, then those of the weights, which are formed while the former is added up."""
    gathers = _start_gathers(x_BtD, group, chunks)
    blocks_of_grads = zip(*(grad.chunk(chunks, dim=1) for grad in grads), strict=True)
    sums = [_start_sum(sum_of_products(blocks, weights), group) for blocks in blocks_of_grads]
    x_ND = _joined([block() for block in gathers]).flatten(0, 1)
    d_weights = [grad.flatten(0, 1).T @ x_ND for grad in grads]
    return [_joined([part() for part in sums]), *d_weights]


@torch.library.custom_op(
    "criadero::multiply_and_add_up",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, str group, int chunks) -> Tensor",
)
def multiply_and_add_up(x: Tensor, weight: Tensor, group: str, chunks: int) -> Tensor:
    """Return `add_up(x @ weight.T)`, (B, t, D), of x (B, T, columns) and a weight (D, columns)."""
    sums = [_start_sum(F.linear(block, weight), group) for block in x.chunk(chunks, dim=1)]
    return _joined([part() for part in sums])


@torch.library.custom_op(
    "criadero::multiply_and_add_up_backward",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor grad, str group, int chunks) -> (Tensor, Tensor)",
)
def _multiply_and_add_up_backward(
    x: Tensor, weight: Tensor, grad_BtD: Tensor, group: str, chunks: int
) -> tuple[Tensor, Tensor]:
    """Return the gradients of x and of the weight."""
    blocks, d_x = [], []
    for block in _start_gathers(grad_BtD, group, chunks):
        blocks.append(block())
        d_x.append(blocks[-1] @ weight)
    d_weight = _joined(blocks).flatten(0, 1).T @ x.flatten(0, 1)
    return _joined(d_x), d_weight


@torch.library.custom_op(
    "criadero::gather", mutates_args=(), schema="(Tensor x, str group, int chunks) -> Tensor"
)
def gather(x_BtD: Tensor, group: str, chunks: int) -> Tensor:
    """Return the whole sequence (B, T, D) of the parts (B, t, D) that the ranks hold."""
    return _joined([block() for block in _start_gathers(x_BtD, group, chunks)])


@torch.library.custom_op(
    "criadero::add_up", mutates_args=(), schema="(Tensor x, str group, int chunks) -> Tensor"
)
def add_up(x_BTD: Tensor, group: str, chunks: int) -> Tensor:
    """Return this rank's part (B, t, D) of the sum over ranks of (B, T, D)."""
    sums = [_start_sum(block, group) for block in x_BTD.chunk(chunks, dim=1)]
    return _joined([part() for part in sums])


def _start_gathers(x_BtD: Tensor, group: str, chunks: int) -> list[Pending]:
    """Start gathering every block of the sequence; each gives (B, T / chunks, D)."""
    return [_start_gather(piece, group) for piece in x_BtD.chunk(chunks, dim=1)]


def _start_gather(piece_BtD: Tensor, group: str) -> Pending:
    parts = _COLLECTIVES.all_gather_into_tensor(piece_BtD.contiguous(), _size(group), group)

    def finish() -> Tensor:
        whole: Tensor = _COLLECTIVES.wait_tensor(parts)
        by_rank = whole.view(_size(group), *piece_BtD.shape)
        return by_rank.transpose(0, 1).flatten(1, 2)

    return finish


def _start_sum(block_BTD: Tensor, group: str) -> Pending:
    """Start adding up a block over ranks; gives this rank's part of it."""
    parts = block_BTD.unflatten(1, (_size(group), -1)).transpose(0, 1).flatten(0, 1)
    own = _COLLECTIVES.reduce_scatter_tensor(parts.contiguous(), "sum", _size(group), group)

    def finish() -> Tensor:
        part: Tensor = _COLLECTIVES.wait_tensor(own)
        return part

    return finish


def _size(group: str) -> int:
    name: Any = group
    return int(dist.distributed_c10d._resolve_process_group(name).size())  # type: ignore[attr-defined]


def _joined(blocks: Sequence[Tensor]) -> Tensor:
    """Put blocks of the sequence one after the other."""
    return blocks[0] if len(blocks) == 1 else torch.cat(list(blocks), dim=1)


@gather_and_multiply.register_fake
def _(x: Tensor, weights: Sequence[Tensor], group: str, *_: Any) -> list[Tensor]:
    length = x.shape[1] * _size(group)
    return [x.new_empty((x.shape[0], length, weight.shape[0])) for weight in weights]


@_gather_and_multiply_backward.register_fake
def _(x: Tensor, weights: Sequence[Tensor], *_: Any) -> list[Tensor]:
    return [x.new_empty(x.shape), *(weight.new_empty(weight.shape) for weight in weights)]


@multiply_and_add_up.register_fake
def _(x: Tensor, weight: Tensor, group: str, *_: Any) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[1] // _size(group), weight.shape[0]))


@_multiply_and_add_up_backward.register_fake
def _(x: Tensor, weight: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape)


@gather.register_fake
def _(x: Tensor, group: str, *_: Any) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[1] * _size(group), *x.shape[2:]))


@add_up.register_fake
def _(x: Tensor, group: str, *_: Any) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[1] // _size(group), *x.shape[2:]))


def _keep_group(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001
    *_, ctx.group, ctx.chunks = inputs


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001
    x, weights, ctx.group, ctx.chunks = inputs
    ctx.save_for_backward(x, *([weights] if isinstance(weights, Tensor) else weights))


def _differentiate_gather_and_multiply(ctx: Any, grads: list[Tensor]) -> tuple[Any, ...]:
    x, *weights = ctx.saved_tensors
    d_x, *d_weights = _gather_and_multiply_backward(x, weights, grads, ctx.group, ctx.chunks)
    return d_x, d_weights, None, None


def _differentiate_multiply_and_add_up(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return *_multiply_and_add_up_backward(*ctx.saved_tensors, grad, ctx.group, ctx.chunks), None, None


def _differentiate_gather(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return add_up(grad, ctx.group, ctx.chunks), None, None


def _differentiate_add_up(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return gather(grad, ctx.group, ctx.chunks), None, None


gather_and_multiply.register_autograd(_differentiate_gather_and_multiply, setup_context=_keep_inputs)
multiply_and_add_up.register_autograd(_differentiate_multiply_and_add_up, setup_context=_keep_inputs)
gather.register_autograd(_differentiate_gather, setup_context=_keep_group)
add_up.register_autograd(_differentiate_add_up, setup_context=_keep_group)
