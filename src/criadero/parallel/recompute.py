"""What a layer keeps for its backward pass and what that pass computes again (LLaMA 2.4, item 2).

Entry point: `recompute_layers`, before layers are compiled and sharded. The paper keeps what is costly to
compute, the outputs of linear layers; here torch's selective checkpointing is told which operators' results
to keep, and repeats norms, SiLU, rotations and sums. The checkpoint is inside the layer, so a compiler sees
it. Letters: D model width, H heads, K key/value heads, E head width, F feed-forward width.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from criadero.model.transformer import Transformer, TransformerLayer

# By name, because not every release of torch has all of them. No `bmm`: inside a layer that is attention
# written out, whose weights, one for each pair of tokens, are what must not be kept.
PRODUCTS = ("aten.mm.default", "aten._scaled_mm.default")
ATTENTION = (
    "aten._scaled_dot_product_flash_attention_for_cpu.default",
    "aten._scaled_dot_product_flash_attention.default",
    "aten._scaled_dot_product_efficient_attention.default",
    "aten._scaled_dot_product_cudnn_attention.default",
    "aten._scaled_dot_product_fused_attention_overrideable.default",
    "criadero.causal_attention.default",
)
# Of `parallel.exchange`; what ranks exchange is inside, and not exchanged again.
SHARED_PRODUCTS = ("criadero.gather_and_multiply.default", "criadero.multiply_and_add_up.default")
# One number, for which a whole tensor was read: the scale of 8-bit products.
SCALE = ("aten.max.default",)
KEPT = frozenset((*PRODUCTS, *ATTENTION, *SHARED_PRODUCTS, *SCALE))

Contexts = Callable[[], tuple[AbstractContextManager[Any], AbstractContextManager[Any]]]


def recompute_layers(model: Transformer, policy: Literal["none", "paper", "full"]) -> None:
    """Make each of `model.layers` keep less while training, in place; names of parameters are unchanged.

    Args:
        model: after `share_products`, before `compile_layers` and `parallelize`.
        policy: `none` changes nothing. `full` keeps the input of each layer, D numbers a token, and repeats
            the layer. `paper` keeps 2 D + 2 H E + 2 K E + 2 F numbers a token, 6 D + 2 F without grouped
            heads, and of most kinds of attention H float32; it repeats no matrix product and no attention.
            Run eagerly, all three give the same gradients to the bit.
    """
    if policy == "none":
        return
    contexts = None if policy == "full" else _keep_products(model)
    for layer in model.layers:
        layer.forward = partial(_run, layer.forward, contexts)


def _run(forward: Callable[..., Any], contexts: Contexts | None, *args: Any, **kwargs: Any) -> Any:
    """Call a layer's own forward; nothing is random in it, so no state of generators is kept."""
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    if contexts is None:
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)
    return checkpoint(
        forward, *args, use_reentrant=False, preserve_rng_state=False, context_fn=contexts, **kwargs
    )


def _keep_products(model: Transformer) -> Contexts:
    """Return what `checkpoint` takes: one function for all layers, so that they share one compiled graph."""
    last_width = _width_of_last_product(model)

    # differs from paper: 2.4 item 2 has a backward function written by hand.
    def policy(_context: Any, operator: Any, *args: Any, **_kwargs: Any) -> CheckpointPolicy:
        name = str(operator)
        # The backward pass needs nothing that comes after the input of the last product: it is not repeated.
        if name in PRODUCTS and args[0].shape[-1] == last_width:
            return CheckpointPolicy.PREFER_RECOMPUTE
        return CheckpointPolicy.MUST_SAVE if name in KEPT else CheckpointPolicy.PREFER_RECOMPUTE

    return partial(create_selective_checkpoint_contexts, policy)


def _width_of_last_product(model: Transformer) -> int | None:
    """Return how many numbers of a token `down_proj` takes, if that tells it from the others; else None.

    None as well where ranks share the product or 8 bits do it: such operators ask for what their backward
    needs only once they are done, so the last one would be repeated.
    """
    layer = model.layers[0]
    assert isinstance(layer, TransformerLayer)
    down = layer.feed_forward.down_proj
    if type(down) is not nn.Linear or isinstance(down.weight, DTensor):
        return None
    others = {layer.attention.q_proj.in_features, layer.attention.o_proj.in_features}
    return None if down.in_features in others else down.in_features
