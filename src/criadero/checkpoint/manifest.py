"""What a whole checkpoint is: `manifest.json`, written last, lists and hashes everything else.

Entry points: `Manifest`, `write_manifest`, `read_manifest`, `check_sizes`. A folder without a valid manifest
is no checkpoint. Every tensor is described by slices that tile it exactly, so that a shard file that is
missing or belongs elsewhere cannot go unnoticed, and any number of ranks can read what another wrote.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from criadero import files
from criadero.errors import CheckpointError, DataError

FORMAT = "criadero checkpoint"
VERSION = 1
MANIFEST = "manifest.json"
STATE = "state.json"
_MAX_MANIFEST_BYTES = 1 << 30
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
_STEP_NAME = re.compile(r"step-(\d{8,18})")


class Slice(NamedTuple):
    """A box of a tensor that lies in one file, under the tensor's name."""

    file: str
    offsets: tuple[NonNegativeInt, ...]
    sizes: tuple[NonNegativeInt, ...]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Entry):
    """A file of the checkpoint, as it must be found."""

    size_bytes: NonNegativeInt
    sha256: str = Field(pattern=r"\A[0-9a-f]{64}\z")


class TensorEntry(_Entry):
    """A tensor: its global shape, the name of its torch dtype, and the slices that tile it."""

    shape: tuple[NonNegativeInt, ...]
    dtype: str = Field(pattern=r"\A(float64|float32|bfloat16|float16|int64|int32|int16|int8|uint8|bool)\z")
    slices: tuple[Slice, ...]


class Manifest(_Entry):
    """All of a checkpoint: where the run stood, its files and its tensors.

    Attributes:
        step: optimizer steps done.
        tokens: tokens trained on.
        config_sha256: hash of the run's resolved config.
        world_size: number of ranks that wrote it; any number may read it.
        files: name within the folder -> size and hash.
        tensors: name -> shape, dtype, slices.
    """

    step: NonNegativeInt
    tokens: NonNegativeInt
    config_sha256: str
    world_size: PositiveInt
    files: dict[str, FileEntry]
    tensors: dict[str, TensorEntry]


def step_folder(folder: Path, step: int) -> Path:
    """Return where the checkpoint of `step` lies: `step-00000123`."""
    return folder / f"step-{step:08d}"


def steps_in(folder: Path) -> list[int]:
    """Return the steps that have a folder with its final name, ascending; it may still be damaged."""
    if not folder.is_dir():
        return []
    names = (_STEP_NAME.fullmatch(entry.name) for entry in folder.iterdir() if entry.is_dir())
    return sorted(int(name[1]) for name in names if name)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` atomically, with a hash over itself.

    Raises:
        CheckpointError: the slices do not tile the tensors; nothing is written.
    """
    check_consistency(folder, manifest)
    body = {"format": FORMAT, "version": VERSION, **manifest.model_dump(mode="json")}
    files.write_text(folder / MANIFEST, _compact({**body, "sha256": _own_hash(body)}))


def read_manifest(folder: Path) -> Manifest:
    """Read and check `manifest.json`; the files it lists are not touched.

    Raises:
        CheckpointError: it is missing, of another format version, damaged, or lists what cannot be.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointError(f"`{folder}` has no {MANIFEST}: it was never finished")
    body = files.read_json(path, max_bytes=_MAX_MANIFEST_BYTES, error=CheckpointError)
    if not isinstance(body, dict) or body.pop("format", None) != FORMAT:
        raise CheckpointError(f"`{path}` is not the manifest of a checkpoint")
    if (version := body.pop("version", None)) != VERSION:
        raise CheckpointError(
            f"`{folder}` has format version {version!r}, this program reads version {VERSION}",
            hint="use the release of criadero that wrote it, or a newer one",
        )
    stated = body.pop("sha256", None)
    if stated != _own_hash({"format": FORMAT, "version": VERSION, **body}):
        raise CheckpointError(f"`{path}` is damaged: its own hash does not fit its content")
    manifest = _validated(path, body)
    check_consistency(folder, manifest)
    return manifest


def _validated(path: Path, body: dict[str, Any]) -> Manifest:
    try:
        return Manifest.model_validate(body)
    except ValidationError as problem:
        fault = problem.errors(include_url=False)[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise CheckpointError(f"`{path}` is malformed at `{place}`: {fault['msg']}") from None


def _own_hash(body: dict[str, Any]) -> str:
    return files.sha256_bytes(_compact(body, sort_keys=True).encode())


def _compact(value: Any, *, sort_keys: bool = False) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=sort_keys)


def check_consistency(folder: Path, manifest: Manifest) -> None:
    """Check that names stay inside the folder and that slices tile each tensor out of listed files.

    Raises:
        CheckpointError: naming the file or tensor at fault.
    """
    for name in manifest.files:
        inside = _FILE_NAME.fullmatch(name) and (name == STATE or name.endswith(".safetensors"))
        if not inside:
            raise CheckpointError(f"`{folder}` lists the file {name!r}, which cannot be part of a checkpoint")
        _inside(folder, name)
    if STATE not in manifest.files:
        raise CheckpointError(f"`{folder}` does not list {STATE}")
    for name, tensor in manifest.tensors.items():
        if any(part.file not in manifest.files or part.file == STATE for part in tensor.slices):
            raise CheckpointError(f"`{folder}`: tensor `{name}` lies in a file that is not listed")
        if not tiles(tensor.shape, tensor.slices):
            raise CheckpointError(
                f"`{folder}`: the {len(tensor.slices)} slices of tensor `{name}` do not make up "
                f"its shape {list(tensor.shape)}"
            )


def _inside(folder: Path, name: str) -> Path:
    try:
        return files.safe_join(folder, name)
    except DataError as problem:
        raise CheckpointError(problem.message) from None


def check_sizes(folder: Path, manifest: Manifest) -> None:
    """Check that every listed file is there and has its size: cheap, done even without verification.

    Raises:
        CheckpointError: naming the file, with the size found and expected.
    """
    for name, entry in manifest.files.items():
        path = _inside(folder, name)
        if not path.is_file():
            raise CheckpointError(f"`{path}` is missing")
        if (found := path.stat().st_size) != entry.size_bytes:
            raise CheckpointError(f"`{path}` has {found:,} bytes, expected {entry.size_bytes:,}")


def check_hash(folder: Path, name: str, entry: FileEntry) -> None:
    """Check the content of one file.

    Raises:
        CheckpointError: naming the file, with the hash found and expected.
    """
    path = _inside(folder, name)
    if (found := files.sha256_file(path)) != entry.sha256:
        raise CheckpointError(f"`{path}` is damaged: sha256 {found}, expected {entry.sha256}")


def tiles(shape: Sequence[int], slices: Sequence[Slice]) -> bool:
    """Return whether the boxes cover `shape` exactly once."""
    if any(not _within(shape, part) for part in slices):
        return False
    filled = sorted((part for part in slices if math.prod(part.sizes)), key=lambda part: part.offsets)
    if sum(math.prod(part.sizes) for part in filled) != math.prod(shape):
        return False
    active: list[Slice] = []
    for part in filled:
        # Sorted by first offset: boxes that end before this one starts can meet no later one either.
        active = [other for other in active if not shape or _end(other) > part.offsets[0]]
        if any(_overlap(part, other) for other in active):
            return False
        active.append(part)
    return True


def _end(part: Slice) -> int:
    return part.offsets[0] + part.sizes[0]


def _within(shape: Sequence[int], part: Slice) -> bool:
    if not len(shape) == len(part.offsets) == len(part.sizes):
        return False
    return all(o + s <= n for n, o, s in zip(shape, part.offsets, part.sizes, strict=True))


def _overlap(one: Slice, other: Slice) -> bool:
    return all(
        a < b + m and b < a + n
        for a, n, b, m in zip(one.offsets, one.sizes, other.offsets, other.sizes, strict=True)
    )
