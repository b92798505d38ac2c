"""Building what a rank trains with: the sharded model with its first weights, and its device.

Each step of `build_model` sees what the one before left: products are shared, then done in 8 bits; layers are
told what to keep, and compiled with that inside; FSDP2 shards them; only then is there memory, for this
rank's shards alone, and values, which are a pure function of seed and name or come from another model.
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor, distribute_tensor

from criadero.config import to_values
from criadero.errors import ConfigError, ResourceError
from criadero.formats.load import open_model
from criadero.model.init import initialize
from criadero.model.transformer import Transformer
from criadero.notices import say_once
from criadero.parallel.compile import compile_layers
from criadero.parallel.fp8 import multiply_in_fp8
from criadero.parallel.mesh import Mesh
from criadero.parallel.parallelize import parallelize
from criadero.parallel.recompute import recompute_layers
from criadero.parallel.tensor_parallel import share_products
from criadero.train.allocator import keep_freed_memory
from criadero.train.config import RunConfig


def choose_device(name: str) -> torch.device:
    """Return the device a config names; `auto` is CUDA where there is one, said once where there is none.

    Raises:
        ResourceError: CUDA is asked for and missing.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ResourceError(
            "train.device is `cuda`, but no CUDA device is available", hint="use train.device=cpu"
        )
    if name == "auto" and not torch.cuda.is_available():
        say_once("no CUDA device found, training on the CPU", level=logging.INFO)
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def build_model(config: RunConfig, mesh: Mesh) -> Transformer:
    """Return the model, sharded over the mesh, float32, with its first weights."""
    if mesh.device.type == "cpu":
        keep_freed_memory()
    model = shape_model(config, mesh)
    model.to_empty(device=mesh.device)
    if config.initial_model is None:
        initialize(model, config.train.seed)
    else:
        _load_weights(model, config.initial_model)
    return model


def shape_model(config: RunConfig, mesh: Mesh, *, kernels: bool = True) -> Transformer:
    """Return the model as the ranks share it, on the meta device: shapes and no values.

    Without `kernels` it is neither compiled nor put into 8 bits, which changes no shape of a parameter.
    """
    with torch.device("meta"):
        model = Transformer(config.model)
    share_products(model, mesh, chunks=config.parallel.tp_chunks)
    if kernels and config.train.fp8:
        multiply_in_fp8(model, mesh.device)
    recompute_layers(model, config.train.recompute)
    if kernels and config.train.compile:
        compile_layers(model, mesh.device)
    parallelize(model, mesh, param_dtype=getattr(torch, config.train.compute_dtype))
    return model


def _load_weights(model: Transformer, path: Path) -> None:
    """Fill the sharded model from a MODEL made by others or by another run, one tensor at a time."""
    stored = open_model(path)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    found = {name: tuple(tensor.shape) for name, tensor in stored.tensors.items()}
    if shapes != found:
        different = sorted(
            name for name in shapes.keys() | found.keys() if shapes.get(name) != found.get(name)
        )
        name = different[0]
        raise ConfigError(
            f"[model] does not describe `{path}`: {len(different)} tensors differ, first `{name}`: "
            f"config {shapes.get(name)}, file {found.get(name)}",
            hint=f"the settings that fit are {to_values(stored.config)}",
        )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            weight = stored.tensors[name].read().to(device=parameter.device, dtype=parameter.dtype)
            assert isinstance(parameter, DTensor)
            parameter.copy_(
                distribute_tensor(weight, parameter.device_mesh, parameter.placements, src_data_rank=None)
            )
