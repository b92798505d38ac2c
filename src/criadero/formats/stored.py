"""A model as it lies on disk: config and tensors under our names, each read only when asked for.

Entry points: `StoredModel`, what every reader returns, and `check`, which compares its tensors with what
the config calls for before anything is allocated. Shapes and dtypes are known without reading data.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from criadero.errors import FormatError
from criadero.model.config import ModelConfig
from criadero.model.quantized import QuantizedTensor
from criadero.model.transformer import Transformer
from criadero.tokenizer.tokenizer import Tokenizer

_FAULTS_SHOWN = 20


@dataclass(frozen=True)
class StoredBlocks:
    """A matrix as the quantised blocks it lies in.

    Args:
        type: GGUF's name of the blocks, such as `Q4_1`.
        read: reads the bytes of each row's blocks, uint8 (rows, bytes a row), rows in our layout.
    """

    type: str
    read: Callable[[], Tensor]


@dataclass(frozen=True)
class StoredTensor:
    """One tensor on disk.

    Args:
        shape: as the model has it.
        dtype: the precision it is stored in; of quantised weights, float16.
        read: reads it, on the CPU, in our layout; float32 when dequantised.
        blocks: of a quantised matrix, what it is kept in.
        read_quantized: reads a quantised matrix as it is, without loss, on the CPU, rows in our layout.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]
    blocks: StoredBlocks | None = None
    read_quantized: Callable[[], QuantizedTensor] | None = None


@dataclass(frozen=True)
class StoredModel:
    """A model on disk, checked, not yet read.

    Args:
        path: where it was found.
        kind: the format in words.
        config: the architecture.
        tensors: by our parameter names; exactly those the config calls for.
        read_tokenizer: reads the tokenizer that lies beside the weights; None when there is none.
        chat_template: the text of the template that came with it, None when there is none. It is never
            run: `criadero.tokenizer.chat` recognises the ones it has functions for.
    """

    path: Path
    kind: str
    config: ModelConfig
    tensors: Mapping[str, StoredTensor]
    read_tokenizer: Callable[[], Tokenizer] | None
    chat_template: str | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The precision the model is kept in: that of its matrices, the widest if they differ."""
        found = {stored.dtype for stored in self.tensors.values() if len(stored.shape) > 1}
        return next(iter(found)) if len(found) == 1 else torch.float32

    @property
    def is_quantized(self) -> bool:
        """Whether some matrices are quantised."""
        return any(stored.read_quantized is not None for stored in self.tensors.values())


def check(path: Path, config: ModelConfig, tensors: Mapping[str, StoredTensor]) -> None:
    """Compare the tensors found with those the config calls for.

    Raises:
        FormatError: listing every tensor that is missing, left over or of another shape.
    """
    layers = {int(match[1]) for name in tensors if (match := re.match(r"layers\.(\d+)\.", name))}
    if layers != set(range(len(layers))) or len(layers) != config.num_layers:
        raise FormatError(
            f"`{path}` has weights of {len(layers)} layers (highest: {max(layers, default='none')}), "
            f"its config says {config.num_layers}"
        )
    expected = parameter_shapes(config)
    faults = [f"`{name}` is missing" for name in expected if name not in tensors]
    faults += [f"`{name}` does not belong to the model" for name in tensors if name not in expected]
    faults += [
        f"`{name}` is {list(stored.shape)}, {list(expected[name])} expected"
        for name, stored in tensors.items()
        if name in expected and stored.shape != expected[name]
    ]
    if faults:
        more = [f"and {len(faults) - _FAULTS_SHOWN} more"] if len(faults) > _FAULTS_SHOWN else []
        lines = "\n".join(f"  - {fault}" for fault in faults[:_FAULTS_SHOWN] + more)
        raise FormatError(f"`{path}`: {len(faults)} tensors do not fit the config:\n{lines}")


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every parameter, in the model's order, without allocating."""
    with torch.device("meta"):
        model = Transformer(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
