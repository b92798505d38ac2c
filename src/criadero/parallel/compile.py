"""Layers compiled by `torch.compile`. Entry points: `compile_layers`, before `parallelize`, `find_compiler`.

Layers are alike, so all share one compiled graph: one for training, one for scoring, each again where
documents are masked. A compiler that is missing or fails costs speed and nothing else.
"""

from __future__ import annotations

import shutil

import torch
from torch import nn

from criadero.notices import say_once
from criadero.parallel.parallelize import layers_of


def compile_layers(model: nn.Module, device: torch.device) -> bool:
    """Compile each layer in place, names of parameters unchanged; to be called before `parallelize`.

    Returns:
        False if this machine cannot compile: then the model runs as it is, and that is said once.
    """
    problem = _why_not_compile(device)
    if problem is not None:
        say_once(f"compilation is off: {problem}; training works without it, somewhat slower")
        return False
    for layer in layers_of(model):
        # A run knows few shapes. A graph for any shape would break at attention, whose `is_causal` follows
        # from lengths that are then unknown.
        layer.compile(dynamic=False)
    return True


def find_compiler() -> str | None:
    """Return the path of the C++ compiler that `torch.compile` would use; None if there is none."""
    return next((path for name in ("g++", "c++", "clang++", "clang") if (path := shutil.which(name))), None)


def _why_not_compile(device: torch.device) -> str | None:
    if find_compiler() is None:
        return "no C++ compiler (g++ or clang) is installed"
    try:
        torch.compile(_one_more)(torch.zeros(2, device=device))
    except Exception as problem:
        return f"the compiler failed ({type(problem).__name__}: {str(problem).strip().splitlines()[0]})"
    return None


def _one_more(value: torch.Tensor) -> torch.Tensor:
    return value + 1
