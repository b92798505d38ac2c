"""Matrix products of the layers in 8-bit floating point, by torchao. Entry point: `multiply_in_fp8`.

Weights, gradients and optimizer states stay as they are: inputs, weights and gradients are scaled to 8 bits
at each product, by their greatest absolute value. Embedding and output are left in the compute dtype. Tried
with torchao's emulation on CPUs; speed and convergence on GPUs have not been measured.
"""

from __future__ import annotations

import torch

from criadero.errors import ResourceError
from criadero.model.transformer import Transformer
from criadero.notices import say_once

# The first with such products: Ada (8.9), then Hopper (9.0).
_CAPABILITY = (8, 9)


def multiply_in_fp8(model: Transformer, device: torch.device) -> None:
    """Let all linear layers of `model.layers` multiply in 8 bits, in place; names of parameters stay.

    Args:
        model: on any device (meta too), before anything else but `share_products` is done to it; widths are
            multiples of 16.
        device: where it will run.

    Raises:
        ResourceError: the device cannot do it, or torchao is not installed.
    """
    _require_device(device)
    try:
        from torchao.float8 import Float8LinearConfig, convert_to_float8_training
    except ImportError as problem:
        raise ResourceError(
            f"train.fp8 needs torchao: {problem}", hint="pip install 'criadero[fp8]', or train.fp8=false"
        ) from problem
    say_once("train.fp8 is on: products in 8 bits are less exact, compare the loss with a run without")
    convert_to_float8_training(model.layers, config=Float8LinearConfig())


def _require_device(device: torch.device) -> None:
    if device.type != "cuda":
        raise ResourceError(f"train.fp8 needs a CUDA device, this is `{device.type}`", hint="train.fp8=false")
    capability = torch.cuda.get_device_capability(device)
    if capability < _CAPABILITY:
        name = torch.cuda.get_device_name(device)
        raise ResourceError(
            f"train.fp8 needs a GPU of compute capability 8.9 or more, `{name}` has "
            f"{'.'.join(map(str, capability))}",
            hint="train.fp8=false",
        )
