"""Finding, verifying and reading checkpoints. Entry points: `find_newest_good`, `checkpoint_at`, `load`,
`read_tensors`.

The manifest is the only authority: each slice is looked up in the file it names and checked against its
shape and dtype. All listed files are hashed by default, the work shared between ranks. Slices are cut to
what each rank holds, so a checkpoint of any number of ranks loads on any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open

from criadero import files
from criadero.checkpoint.manifest import (
    STATE,
    Manifest,
    Slice,
    TensorEntry,
    check_hash,
    check_sizes,
    read_manifest,
    step_folder,
    steps_in,
)
from criadero.checkpoint.shard import Shard, shard_of
from criadero.errors import CheckpointError
from criadero.parallel.collectives import everywhere, gather


def find_newest_good(
    folder: Path,
    *,
    at_most: int | None = None,
    verify: bool = True,
    on_skip: Callable[[Path, str], None] | None = None,
    group: dist.ProcessGroup | None = None,
) -> Path | None:
    """Walk back from the newest checkpoint in `folder` to the first that is whole; None if there is none.

    Collective over `group` (None: this process alone); all ranks get the same answer.

    Args:
        folder: the checkpoints folder of a run; it need not exist.
        at_most: look at no later step.
        verify: hash all files; else only look at the manifest and the sizes.
        on_skip: called with each checkpoint passed over and the reason.
        group: the ranks that share the work.

    Raises:
        CheckpointError: there are checkpoints but none is whole; nobody should start from zero unasked.
    """
    skipped: list[str] = []
    for step in reversed(gather(steps_in(folder), group)[0]):
        if at_most is not None and step > at_most:
            continue
        path = step_folder(folder, step)
        try:
            verified_manifest(path, verify=verify, group=group)
        except CheckpointError as problem:
            skipped.append(problem.message)
            if on_skip is not None:
                on_skip(path, problem.message)
        else:
            return path
    if skipped:
        raise CheckpointError(
            f"none of the {len(skipped)} checkpoints in `{folder}` is whole:\n  - " + "\n  - ".join(skipped),
            hint="restore one from a copy, or start a new run in another folder",
        )
    return None


def checkpoint_at(folder: Path, step: int) -> Path:
    """Return the checkpoint of exactly this step.

    Raises:
        CheckpointError: there is none; the steps that exist are listed.
    """
    path = step_folder(folder, step)
    if not path.is_dir():
        existing = ", ".join(str(each) for each in steps_in(folder)) or "none"
        raise CheckpointError(f"`{folder}` has no checkpoint of step {step}", hint=f"steps there: {existing}")
    return path


def verified_manifest(path: Path, *, verify: bool = True, group: dist.ProcessGroup | None = None) -> Manifest:
    """Read the manifest and check the files against it; with `verify`, each rank hashes its part of them.

    Raises:
        CheckpointError: on all ranks if any found a fault.
    """
    rank, size = (0, 1) if group is None else (group.rank(), group.size())
    found: list[Manifest] = []
    everywhere(lambda: found.append(_check(path, verify=verify, rank=rank, size=size)), group)
    return found[0]


def _check(path: Path, *, verify: bool, rank: int, size: int) -> Manifest:
    manifest = read_manifest(path)
    try:
        check_sizes(path, manifest)
        if verify:
            by_size = sorted(manifest.files, key=lambda name: (-manifest.files[name].size_bytes, name))
            for name in by_size[rank::size]:
                check_hash(path, name, manifest.files[name])
    except OSError as problem:
        raise CheckpointError(f"`{path}` cannot be read: {problem}") from problem
    return manifest


def load(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    *,
    verify: bool = True,
    group: dist.ProcessGroup | None = None,
) -> dict[str, Any]:
    """Fill `tensors` in place from the checkpoint `path` and return the state saved beside them.

    Tensors may be plain or DTensors of any layout; values are bit-equal to those saved. Nothing is
    changed unless names, shapes and dtypes all fit and verification passed. Collective over `group`.

    Raises:
        CheckpointError: the checkpoint is not whole, or holds other tensors than asked for.
    """
    manifest = verified_manifest(path, verify=verify, group=group)
    shards = {name: shard_of(tensor) for name, tensor in tensors.items()}
    _require_fit(path, manifest, shards)
    state = _read_state(path)
    everywhere(lambda: _fill(path, manifest, shards), group)
    return state


def read_tensors(path: Path, *, prefix: str = "", verify: bool = True) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield each tensor whose name begins with `prefix`, whole and in main memory, one at a time.

    For export and generation: needs no process group.

    Raises:
        CheckpointError: the checkpoint is not whole.
    """
    manifest = verified_manifest(path, verify=verify)
    for name, entry in manifest.tensors.items():
        if name.startswith(prefix):
            tensor = torch.empty(entry.shape, dtype=getattr(torch, entry.dtype))
            _fill(path, manifest, {name: shard_of(tensor)})
            yield name, tensor


def read_state(path: Path, *, verify: bool = True) -> dict[str, Any]:
    """Return the state saved beside the tensors; needs no process group.

    Raises:
        CheckpointError: the checkpoint is not whole.
    """
    verified_manifest(path, verify=verify)
    return _read_state(path)


def _read_state(path: Path) -> dict[str, Any]:
    state = files.read_json(path / STATE, error=CheckpointError)
    if not isinstance(state, dict):
        raise CheckpointError(f"`{path / STATE}` does not hold an object")
    return state


def _require_fit(path: Path, manifest: Manifest, shards: Mapping[str, Shard]) -> None:
    faults = [f"`{name}` is missing in it" for name in shards if name not in manifest.tensors]
    faults += [f"`{name}` is in it but not asked for" for name in manifest.tensors if name not in shards]
    for name, shard in shards.items():
        wanted = f"{list(shard.shape)} {shard.dtype}"
        entry = manifest.tensors.get(name)
        if entry is not None and (found := f"{list(entry.shape)} {entry.dtype}") != wanted:
            faults.append(f"`{name}` is {found} in it, expected {wanted}")
    if faults:
        shown = faults[:8] + ([f"and {len(faults) - 8} more"] if len(faults) > 8 else [])
        raise CheckpointError(
            f"`{path}` does not fit this run:\n  - " + "\n  - ".join(shown),
            hint="it belongs to another model or optimizer configuration",
        )


@torch.no_grad()
def _fill(path: Path, manifest: Manifest, shards: Mapping[str, Shard]) -> None:
    """Copy every slice that meets a local shard, file by file."""
    wanted: dict[str, list[tuple[str, Slice]]] = {}
    for name, shard in shards.items():
        for part in manifest.tensors[name].slices:
            if shard.local.numel() and math.prod(part.sizes) and _meet(shard, part):
                wanted.setdefault(part.file, []).append((name, part))
    for file, parts in wanted.items():
        try:
            with safe_open(path / file, framework="pt") as stored:
                for name, part in parts:
                    _copy(stored, name, part, manifest.tensors[name], shards[name])
        except (SafetensorError, OSError) as problem:
            raise CheckpointError(f"`{path / file}` is not readable: {problem}") from problem


def _meet(shard: Shard, part: Slice) -> bool:
    boxes = zip(shard.offsets, shard.local.shape, part.offsets, part.sizes, strict=True)
    return all(a < b + m and b < a + n for a, n, b, m in boxes)


def _copy(stored: Any, name: str, part: Slice, entry: TensorEntry, shard: Shard) -> None:
    piece = stored.get_slice(name)
    if tuple(piece.get_shape()) != part.sizes:
        raise CheckpointError(f"`{part.file}` holds `{name}` as {piece.get_shape()}, expected {part.sizes}")
    source, target = _common_box(shard, part)
    values = piece[source] if part.sizes else stored.get_tensor(name)
    if values.dtype != getattr(torch, entry.dtype):
        raise CheckpointError(f"`{part.file}` holds `{name}` in {values.dtype}, expected {entry.dtype}")
    shard.local[target].copy_(values)


def _common_box(shard: Shard, part: Slice) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return where the two boxes meet, as indices into the stored slice and into the local values."""
    source, target = [], []
    for a, n, b, m in zip(shard.offsets, shard.local.shape, part.offsets, part.sizes, strict=True):
        start, stop = max(a, b), min(a + n, b + m)
        source.append(slice(start - b, stop - b))
        target.append(slice(start - a, stop - a))
    return tuple(source), tuple(target)
