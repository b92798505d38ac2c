"""What a MODEL given by a user is: told from names and first bytes, without opening any pickle.

Entry point: `detect(path)`. A run or a checkpoint of ours, a Hugging Face folder, a Meta folder or a
GGUF file; everything else is refused, naming what was looked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from criadero.errors import FormatError

Kind = Literal["huggingface", "meta", "gguf", "checkpoint"]

_PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz")
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80")  # a zip as torch.save writes it; pickle protocol 2 and later


@dataclass(frozen=True)
class Found:
    """What was found, and where: for a run, the model or checkpoint inside it."""

    kind: Kind
    path: Path


def detect(path: Path) -> Found:
    """Say what `path` holds.

    Raises:
        FormatError: it does not exist, is a pickle, or is none of the formats that are read.
    """
    if path.is_dir():
        return _detect_folder(path)
    if not path.exists():
        raise FormatError(
            f"`{path}` does not exist",
            hint="a model is a folder or a .gguf file on this machine; nothing is downloaded",
        )
    return _detect_file(path)


def _detect_file(path: Path) -> Found:
    try:
        with path.open("rb") as stream:
            start = stream.read(4)
    except OSError as problem:
        raise FormatError(f"`{path}` cannot be read: {problem.strerror}") from problem
    if start == b"GGUF":
        return Found("gguf", path)
    if path.suffix in _PICKLES or start.startswith(_PICKLE_STARTS):
        raise FormatError(
            f"`{path}` is a pickle, which can run code when opened, and was left unopened",
            hint="give a folder with *.safetensors, or for Meta's weights the folder that holds "
            "consolidated.00.pth and params.json",
        )
    if path.suffix == ".safetensors":
        raise FormatError(
            f"`{path}` holds weights without a config",
            hint=f"give the folder it lies in: `{path.parent}`",
        )
    raise FormatError(
        f"`{path}` is not a GGUF file: it starts with {start!r}, b'GGUF' expected",
        hint="a model is a folder with weights, a run, a checkpoint or a .gguf file",
    )


def _detect_folder(path: Path) -> Found:
    if (path / "model" / "config.json").is_file():
        return Found("huggingface", path / "model")
    if (path / "config.json").is_file():
        return Found("huggingface", path)
    if (path / "params.json").is_file() and any(path.glob("consolidated.*.pth")):
        return Found("meta", path)
    if (path / "checkpoints").is_dir():
        return Found("checkpoint", path / "checkpoints")
    if (path / "manifest.json").is_file() or any(path.glob("step-*")):
        return Found("checkpoint", path)
    if len(files := sorted(path.glob("*.gguf"))) == 1:
        return Found("gguf", files[0])
    raise FormatError(
        f"`{path}` holds no model: neither config.json (Hugging Face), nor params.json with "
        "consolidated.00.pth (Meta), nor model/ or checkpoints (a run), nor exactly one .gguf file",
        hint="give the folder that directly contains the weights",
    )
