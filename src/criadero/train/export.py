"""The finished model as a Hugging Face folder, written from the run's newest checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
import torch.distributed as dist

from criadero import files
from criadero.checkpoint.load import checkpoint_at, read_tensors
from criadero.checkpoint.manifest import MANIFEST
from criadero.formats.huggingface import save_model
from criadero.parallel.collectives import everywhere
from criadero.tokenizer import tokenizer as tokenizers
from criadero.train.session import Session


def write_model(session: Session) -> Path:
    """Write `model/` in the run folder on rank 0; one tensor at a time is in memory.

    A model of an earlier end of this run (its budget was extended) is replaced.
    """
    folder = session.config.run.folder / "model"
    everywhere(lambda: _write(session, folder) if session.run is not None else None, dist.group.WORLD)
    return folder


def _write(session: Session, folder: Path) -> None:
    config, step = session.config, session.state.step
    source = checkpoint_at(session.checkpointer.folder, step)
    inputs = {
        "run": config.run.folder.name,
        "step": step,
        "tokens": session.state.tokens,
        "checkpoint_manifest_sha256": files.sha256_file(source / MANIFEST),
        "data": session.batches.fingerprints,
    }
    if (folder / "manifest.json").exists():
        if files.read_json(folder / "manifest.json").get("inputs") == inputs:
            return
        shutil.rmtree(folder)
    weights = read_tensors(source, prefix="model.", verify=False)
    save_model(
        ((name.removeprefix("model."), tensor) for name, tensor in weights),
        config.model,
        tokenizers.load(config.data.sources[0].path / "tokenizer"),
        folder,
        dtype=torch.float32,
        inputs=inputs,
    )
