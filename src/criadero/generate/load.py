"""From a MODEL on disk to a generator that is ready to run.

Entry point: `load_generator`. Device and precision are chosen here when nobody names them: a GPU in bfloat16
where there is one, else the processor in float32. Quantised weights
stay as they are unless a precision is named.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from criadero.errors import ResourceError, TokenizerError
from criadero.formats.load import LoadedModel, load_model
from criadero.generate.engine import Generator

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class LoadedGenerator:
    """A generator and what its model came with."""

    generator: Generator
    loaded: LoadedModel
    device: torch.device
    dtype: torch.dtype


def load_generator(
    path: Path, *, device: str | None = None, dtype: str | None = None, keep_quantized: bool = True
) -> LoadedGenerator:
    """Load the MODEL at `path` for generation.

    Args:
        path: anything `load_model` reads.
        device: such as `cpu` or `cuda:1`; None takes a GPU if there is one.
        dtype: a key of DTYPES; None takes bfloat16 on a GPU that has it, float32 elsewhere, and keeps
            quantised weights as they are.
        keep_quantized: False for weights that are quicker to read many tokens with, in four to eight times
            the memory.

    Raises:
        ResourceError: there is no such device here.
        TokenizerError: the model comes without a tokenizer.
        FormatError, CheckpointError: as `load_model`.
    """
    chosen = _choose_device(device)
    chosen_dtype = _default_dtype(chosen) if dtype is None else DTYPES[dtype]
    loaded = load_model(
        path, dtype=chosen_dtype, device=chosen, keep_quantized=keep_quantized and dtype is None
    )
    if loaded.tokenizer is None:
        raise TokenizerError(
            f"`{path}` has weights but no tokenizer",
            hint="put its `tokenizer.model` or `tokenizer.json` beside the weights",
        )
    return LoadedGenerator(Generator(loaded.model, loaded.tokenizer), loaded, chosen, chosen_dtype)


def _choose_device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).item()  # `meta` has no values
    except (RuntimeError, AssertionError, NotImplementedError) as problem:
        reason = str(problem).splitlines()[0]
        raise ResourceError(f"device `{name}` cannot be used: {reason}", hint="try `--device cpu`") from None
    return device


def _default_dtype(device: torch.device) -> torch.dtype:
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_bfloat16 else torch.float32
