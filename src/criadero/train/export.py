"""The finished model as a Hugging Face folder, written from the run's newest checkpoint."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from criadero import files
from criadero.checkpoint.load import checkpoint_at, read_tensors
from criadero.checkpoint.manifest import MANIFEST
from criadero.formats.huggingface import save_model
from criadero.parallel.collectives import everywhere
from criadero.shards.manifest import TOKENIZER_FOLDER
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
    manifest = folder / "manifest.json"
    if manifest.exists() and files.read_json(manifest).get("inputs") == inputs:
        return
    weights = read_tensors(source, prefix="model.", verify=False)
    with _set_aside(folder):
        save_model(
            ((name.removeprefix("model."), tensor) for name, tensor in weights),
            config.model,
            tokenizers.load(config.data.sources[0].path / TOKENIZER_FOLDER),
            folder,
            dtype=torch.float32,
            inputs=inputs,
        )


@contextmanager
def _set_aside(folder: Path) -> Iterator[None]:
    """Move an earlier model away and remove it at the end of the block; bring it back if that fails.

    It never stands half removed under its name: what a kill leaves is tidied away as a leftover.
    """
    if not (folder / "manifest.json").exists():
        yield
        return
    earlier = folder.with_name(f"{folder.name}.tmp-earlier-{os.getpid()}")
    folder.rename(earlier)
    try:
        yield
    except BaseException:
        earlier.rename(folder)
        raise
    shutil.rmtree(earlier)
