"""Any MODEL a user names, loaded and ready to run.

Entry points: `load_model`, `load_tokenizer`, and `open_model`, which reads headers only and lets the
caller pick tensors. A MODEL is a Hugging Face folder, a run or checkpoint, a Meta folder or a .gguf file.
Weights go straight into a model built on the meta device, one tensor at a time, so memory holds them once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from criadero.errors import FormatError
from criadero.formats import gguf, huggingface, meta
from criadero.formats.detect import detect
from criadero.formats.gguf_header import read_header
from criadero.formats.gguf_tokenizer import read_tokenizer
from criadero.formats.stored import StoredModel, StoredTensor
from criadero.model.config import ModelConfig
from criadero.model.transformer import Transformer
from criadero.tokenizer import chat
from criadero.tokenizer import tokenizer as tokenizers
from criadero.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class LoadedModel:
    """A model that runs, with what came beside it.

    Args:
        tokenizer: None when the source has none.
        chat_template: name of the template that came with it, as `criadero.tokenizer.chat` knows it;
            None when there is none or it is not known.
        has_unknown_template: a template came with it that is not known; it is never run.
        source: path and format, for people.
    """

    model: Transformer
    config: ModelConfig
    tokenizer: Tokenizer | None
    chat_template: str | None
    has_unknown_template: bool
    source: str


def open_model(path: Path) -> StoredModel:
    """Open a MODEL without reading its weights.

    Raises:
        FormatError: it is no model, malformed, unsafe or of an architecture that is not LLaMA's.
        CheckpointError: it is a checkpoint of ours that is damaged.
    """
    found = detect(path)
    if found.kind == "huggingface":
        return huggingface.open_folder(found.path)
    if found.kind == "meta":
        return meta.open_folder(found.path)
    if found.kind == "gguf":
        return gguf.open_file(found.path)
    from criadero.formats import checkpoint

    return checkpoint.open_folder(found.path)


def load_model(
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    keep_quantized: bool = False,
) -> LoadedModel:
    """Load a MODEL, in `dtype` on `device`, ready for inference or further training.

    Args:
        path: anything `open_model` reads.
        dtype: of the weights; with `keep_quantized`, of activations and of what is not quantised.
        device: where the weights go.
        keep_quantized: hold quantised matrices as they are in the file, for inference only; the others
            are in `dtype`.

    Raises:
        FormatError, CheckpointError: as `open_model`; also a vocabulary larger than the model's.
        TokenizerError: the tokenizer beside the weights is malformed.
    """
    stored = open_model(path)
    tokenizer = tokenizer_of(stored)
    with torch.device("meta"):
        model = Transformer(stored.config)
    model.load_state_dict(
        {
            name: _read(tensor, keep_quantized=keep_quantized).to(device=device, dtype=dtype)
            for name, tensor in stored.tensors.items()
        },
        assign=True,
    )
    if keep_quantized and stored.is_quantized:
        model.requires_grad_(False)
    name = chat.recognise(stored.chat_template)
    return LoadedModel(
        model=model,
        config=stored.config,
        tokenizer=tokenizer,
        chat_template=name,
        has_unknown_template=stored.chat_template is not None and name is None,
        source=f"{stored.path} ({stored.kind})",
    )


def _read(tensor: StoredTensor, *, keep_quantized: bool) -> Tensor:
    if keep_quantized and tensor.read_quantized is not None:
        return tensor.read_quantized()
    return tensor.read()


def tokenizer_of(stored: StoredModel) -> Tokenizer | None:
    """Read the tokenizer and check that the model has a row for each of its tokens."""
    if stored.read_tokenizer is None:
        return None
    tokenizer = stored.read_tokenizer()
    if tokenizer.vocab_size > stored.config.vocab_size:
        raise FormatError(
            f"the tokenizer of `{stored.path}` has {tokenizer.vocab_size:,} tokens, "
            f"the model only {stored.config.vocab_size:,}",
            hint="the tokenizer belongs to another model",
        )
    return tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    """Load the tokenizer of a MODEL, or a tokenizer folder or file itself, without touching weights.

    Raises:
        TokenizerError: there is none, or it is malformed.
        FormatError: `path` is no model either.
    """
    if path.suffix in (".model", ".json") and path.is_file():
        return tokenizers.load(path)
    if any((path / name).is_file() for name in ("tokenizer.model", "tokenizer.json")):
        return tokenizers.load(path)
    found = detect(path)
    if found.kind == "gguf":
        return read_tokenizer(read_header(found.path).metadata, found.path)
    if found.kind == "checkpoint":
        from criadero.formats import checkpoint

        return checkpoint.read_tokenizer(found.path)
    return tokenizers.load(found.path)
