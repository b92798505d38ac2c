"""Initial weights as a pure function of (seed, parameter name, global index).

Entry point: `initialize`. Any number of ranks, any sharding and any slicing give bit-identical weights, and
a rank computes only what it holds; torch's own generators cannot do that (on CPU every rank draws the same
numbers for its shard). Weights are normal with standard deviation 0.02, the projections that feed the
residual stream scaled down by sqrt(2 * layers) (Radford et al. 2019); norms are one. The paper leaves
initialisation open.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.tensor import DTensor

from criadero.model.transformer import Transformer

STANDARD_DEVIATION = 0.02
_RESIDUAL_OUTPUTS = ("o_proj.weight", "down_proj.weight")
# Module wrappers that put their own word into parameter names; the name without them names the stream.
_WRAPPER_NAMES = ("_orig_mod.", "_checkpoint_wrapped_module.")
# Always this many numbers at once, so that no value ever takes another arithmetic path (a scalar tail, say);
# arrays of 128 kB stay in the cache and come back from the allocator without page faults.
_BLOCK = 1 << 14
_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)

Indices = NDArray[np.uint64]


@torch.no_grad()
def initialize(model: Transformer, seed: int) -> None:
    """Fill every parameter of a materialised model, plain tensors and DTensors alike, on any device.

    A model built on the meta device needs `to_empty` first. Values are computed on the CPU in float64,
    rounded to float32 and then to the dtype of the parameter.
    """
    num_layers = model.config.num_layers
    for wrapped_name, parameter in model.named_parameters():
        name = _unwrapped(wrapped_name)
        if name.endswith("norm.weight"):
            _local(parameter).fill_(1.0)
        else:
            scale = (2 * num_layers) ** -0.5 if name.endswith(_RESIDUAL_OUTPUTS) else 1.0
            _fill_normal(parameter, seed, name=name, std=STANDARD_DEVIATION * scale)


def normal_values(seed: int, name: str, indices: Indices) -> NDArray[np.float64]:
    """Return the standard normal numbers at `indices` (1-D) of the stream called (seed, name).

    A splitmix64 hash of the index gives two uniform numbers of 32 bits, Box and Muller's transform one
    normal number of them; its magnitude is at most 6.8.
    """
    key = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "little")
    padded = np.zeros(_BLOCK, dtype=np.uint64)
    values = np.empty(len(indices), dtype=np.float64)
    for start in range(0, len(indices), _BLOCK):
        block = indices[start : start + _BLOCK]
        padded[: len(block)] = block
        values[start : start + len(block)] = _box_muller(_splitmix64(padded, key=key))[: len(block)]
    return values


def _splitmix64(counters: Indices, *, key: int) -> Indices:
    """Hash counters to 64 bits each (Steele, Lea and Flood 2014); arithmetic is modulo 2^64."""
    z = counters * _GOLDEN_GAMMA
    z += np.uint64(key)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def _box_muller(bits: Indices) -> NDArray[np.float64]:
    radius = ((bits >> np.uint64(32)) + 0.5) * 2.0**-32  # in (0, 1), never 0
    angle = (bits & np.uint64(0xFFFFFFFF)) * (2.0**-32 * 2 * np.pi)
    values: NDArray[np.float64] = np.sqrt(-2.0 * np.log(radius)) * np.cos(angle)
    return values


def _fill_normal(parameter: Tensor, seed: int, *, name: str, std: float) -> None:
    local = _local(parameter)
    if local.is_meta:
        raise ValueError(f"parameter `{name}` has no storage; call `to_empty` before `initialize`")
    owned = [_owned_indices(parameter, dim) for dim in range(parameter.ndim)]
    flat = local.detach().view(-1)

    def fill(start: int) -> None:
        positions = np.arange(start, min(start + _BLOCK, flat.numel()))
        coordinates = np.unravel_index(positions, local.shape)
        whole = tuple(of_dim[at] for of_dim, at in zip(owned, coordinates, strict=True))
        indices = np.ravel_multi_index(whole, parameter.shape).astype(np.uint64)
        values = (normal_values(seed, name, indices) * std).astype(np.float32)
        flat[start : start + len(positions)].copy_(torch.from_numpy(values))

    # Threads help because numpy lets go of the interpreter lock.
    with ThreadPoolExecutor(max_workers=torch.get_num_threads()) as pool:
        list(pool.map(fill, range(0, flat.numel(), _BLOCK)))


def _owned_indices(parameter: Tensor, dim: int) -> NDArray[np.int64]:
    """Return which indices of dimension `dim` of the whole parameter this rank holds, in its order.

    Splits are applied as DTensor does, from the first mesh dimension to the last. FSDP2 over tensor
    parallelism splits the same dimension twice, the outer one strided: first in `split_factor` pieces, then
    each of those.
    """
    owned = np.arange(parameter.shape[dim])
    if not isinstance(parameter, DTensor):
        return owned
    mesh, coordinate = parameter.device_mesh, parameter.device_mesh.get_coordinate()
    assert coordinate is not None, "this rank is not in the mesh"
    for mesh_dim, placement in enumerate(parameter.placements):
        if getattr(placement, "dim", None) == dim:
            pieces = _chunks(owned, int(getattr(placement, "split_factor", 1)))
            mine = [_chunks(piece, mesh.size(mesh_dim))[coordinate[mesh_dim]] for piece in pieces]
            owned = np.concatenate(mine)
    return owned


def _chunks(indices: NDArray[np.int64], count: int) -> list[NDArray[np.int64]]:
    """Cut into `count` pieces of ceil(n / count), the last ones shorter or empty, as `torch.chunk` does."""
    size = -(-len(indices) // count)
    return [indices[piece * size : (piece + 1) * size] for piece in range(count)]


def _unwrapped(name: str) -> str:
    for wrapper in _WRAPPER_NAMES:
        name = name.replace(wrapper, "")
    return name


def _local(parameter: Tensor) -> Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter
